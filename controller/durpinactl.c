/* SPDX-License-Identifier: MIT */
/* durpinactl: the control API for people. One table of commands drives dispatch and --help. */
#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ctl.h"
#include "server_line.h"

#define SOCKET_DEFAULT "/run/durpina/api.sock"
#define DEFAULT_PORT 80 /* of a server that names none, as in nginx */

static struct {
    const char *socket;
    bool json;
} options;

/* --- requests --------------------------------------------------------------------------------- */

/* body is a JSON value that is released, or NULL. 0 or an exit code, as ctl_request(). */
static int request(const char *method, const char *path, json_t *body, json_t **ret_answer)
{
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    int result = ctl_request(options.socket, method, path, text, ret_answer);

    json_decref(body);
    free(text);
    return result;
}

/* /api/9/KIND/upstreams[/UPSTREAM][REST][/LAST]; names are escaped. Absent parts are NULL. */
static void make_path(char path[CTL_PATH_SIZE], const char *kind, const char *upstream,
                      const char *rest, const char *last)
{
    char *up = upstream != NULL ? curl_easy_escape(NULL, upstream, 0) : NULL;
    char *id = last != NULL ? curl_easy_escape(NULL, last, 0) : NULL;

    snprintf(path, CTL_PATH_SIZE, "/api/9/%s/upstreams%s%s%s%s%s", kind, up != NULL ? "/" : "",
             up != NULL ? up : "", rest != NULL ? rest : "", id != NULL ? "/" : "",
             id != NULL ? id : "");
    curl_free(up);
    curl_free(id);
}

/* --- printing --------------------------------------------------------------------------------- */

static int print_json(json_t *answer)
{
    json_dumpf(answer, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    putchar('\n');
    json_decref(answer);
    return 0;
}

/* Releases the answer, printed as JSON or by view. */
static int print(json_t *answer, void (*view)(const json_t *answer))
{
    if (options.json)
        return print_json(answer);
    view(answer);
    json_decref(answer);
    return 0;
}

/* --- commands --------------------------------------------------------------------------------- */

static int get(const char *path, void (*view)(const json_t *answer))
{
    json_t *answer;
    int err = request("GET", path, NULL, &answer);

    return err != 0 ? err : print(answer, view);
}

static int change(const char *method, const char *path, json_t *body, const char *done)
{
    json_t *answer;
    int err = request(method, path, body, &answer);

    if (err != 0)
        return err;
    if (options.json)
        return print_json(answer);
    puts(done);
    json_decref(answer);
    return 0;
}

static int do_status(char **args)
{
    (void) args;
    return get("/api/9/durpina", ctl_print_status);
}

static int do_kernel(char **args)
{
    char path[CTL_PATH_SIZE];

    if (args[0] == NULL)
        return get("/api/9/durpina/kernel", ctl_print_kernel);
    make_path(path, "http", args[0], NULL, NULL);
    return get(path, ctl_print_connections);
}

static int do_list(char **args)
{
    (void) args;
    return get("/api/9/http/upstreams", ctl_print_upstreams);
}

static int do_show(char **args)
{
    char path[CTL_PATH_SIZE];
    json_t *ours, *plus = NULL, *health = NULL;
    int err;

    make_path(path, "durpina", args[0], NULL, NULL);
    err = request("GET", path, NULL, &ours);
    if (err != 0)
        return err;
    make_path(path, "http", args[0], NULL, NULL);
    err = request("GET", path, NULL, &plus);
    make_path(path, "durpina", args[0], "/peers", NULL);
    if (err == 0)
        err = request("GET", path, NULL, &health);
    if (err == 0) {
        json_object_set(ours, "peers", json_object_get(plus, "peers"));
        json_object_set(ours, "health", health);
    }
    json_decref(plus);
    json_decref(health);
    if (err != 0) {
        json_decref(ours);
        return err;
    }
    return print(ours, ctl_print_upstream);
}

static int get_peers(char **args, void (*view)(const json_t *answer))
{
    char path[CTL_PATH_SIZE];

    make_path(path, "durpina", args[0], "/peers", NULL);
    return get(path, view);
}

static int do_checks(char **args)
{
    return get_peers(args, ctl_print_checks);
}

static int do_history(char **args)
{
    return get_peers(args, ctl_print_history);
}

static int do_create(char **args)
{
    return change("POST", "/api/9/durpina/upstreams", json_pack("{ss}", "name", args[0]),
                  "created");
}

static int do_delete(char **args)
{
    char path[CTL_PATH_SIZE];

    make_path(path, "durpina", args[0], NULL, NULL);
    return change("DELETE", path, NULL, "deleted");
}

static int do_add(char **args)
{
    char path[CTL_PATH_SIZE];
    json_t *body = ctl_server_json(args + 1, DEFAULT_PORT), *answer;
    int err;

    if (body == NULL)
        return CTL_USAGE;
    make_path(path, "http", args[0], "/servers", NULL);
    err = request("POST", path, body, &answer);
    return err != 0 ? err : print(answer, ctl_print_server);
}

/* Fills path with that of the server, which is named as in the list or by its id. */
static int find_server(const char *upstream, const char *name, const char *kind,
                       char path[CTL_PATH_SIZE])
{
    struct server_spec spec = {.name = ""};
    struct failure failure;
    const json_t *server;
    json_t *servers;
    char id[24] = "";
    size_t i;
    int err;

    make_path(path, "http", upstream, "/servers", NULL);
    err = request("GET", path, NULL, &servers);
    if (err != 0)
        return err;
    /* "host" is found as "host:80". */
    if (server_name_parse(name, DEFAULT_PORT, &spec, &failure) < 0)
        spec.name[0] = '\0';
    json_array_foreach(servers, i, server)
    {
        const char *text = json_string_value(json_object_get(server, "server"));
        char this_id[24];

        snprintf(this_id, sizeof(this_id), "%lld",
                 (long long) json_integer_value(json_object_get(server, "id")));
        if (text != NULL && (strcmp(text, name) == 0 || strcasecmp(text, spec.name) == 0 ||
                             strcmp(this_id, name) == 0)) {
            strcpy(id, this_id);
            break;
        }
    }
    json_decref(servers);
    server_spec_clear(&spec);
    if (id[0] == '\0') {
        fprintf(stderr,
                "durpinactl: upstream \"%s\" has no server \"%s\"; see durpinactl show %s\n",
                upstream, name, upstream);
        return CTL_REFUSED;
    }
    make_path(path, kind, upstream, "/servers", id);
    return 0;
}

static int change_server(char **args, json_t *body)
{
    char path[CTL_PATH_SIZE];
    json_t *answer;
    int err = find_server(args[0], args[1], "http", path);

    if (err != 0) {
        json_decref(body);
        return err;
    }
    err = request("PATCH", path, body, &answer);
    return err != 0 ? err : print(answer, ctl_print_server);
}

static int do_weight(char **args)
{
    return change_server(args, json_pack("{ss}", "weight", args[2]));
}

/* The command, which stands before its arguments, is the word of the state. */
static int do_state(char **args)
{
    return change_server(args, json_pack("{ss}", "state", args[-1]));
}

static int do_remove(char **args)
{
    char path[CTL_PATH_SIZE];
    int err = find_server(args[0], args[1], "http", path);

    return err != 0 ? err : change("DELETE", path, NULL, "removed");
}

/* The command, which stands before its arguments, is the last part of the path. */
static int do_act(char **args)
{
    char path[CTL_PATH_SIZE];
    json_t *answer;
    int err = find_server(args[0], args[1], "durpina", path);

    if (err != 0)
        return err;
    snprintf(path + strlen(path), sizeof(path) - strlen(path), "/%s", args[-1]);
    err = request("POST", path, NULL, &answer);
    return err != 0 ? err : print(answer, ctl_print_server);
}

static int do_monitors_list(char **args)
{
    char path[CTL_PATH_SIZE];

    make_path(path, "durpina", args[0], "/monitors", NULL);
    return get(path, ctl_print_monitors);
}

/* args: UPSTREAM TYPE [OPTION=VALUE...]; "id" is no option of the check but the monitor's name. */
static int do_monitors_add(char **args)
{
    json_t *values = json_object();
    json_t *body = json_pack("{ss so}", "name", args[1], "options", values);
    char path[CTL_PATH_SIZE];

    for (char **arg = args + 2; *arg != NULL; arg++) {
        const char *equals = strchr(*arg, '=');

        if (equals == NULL || equals == *arg) {
            fprintf(stderr, "durpinactl: \"%s\" is no OPTION=VALUE\n", *arg);
            json_decref(body);
            return CTL_USAGE;
        }
        if (strncmp(*arg, "id=", 3) == 0) {
            json_object_set_new(body, "id", json_string(equals + 1));
        } else {
            char *key = strndup(*arg, (size_t) (equals - *arg));

            json_object_set_new(values, key, json_string(equals + 1));
            free(key);
        }
    }
    make_path(path, "durpina", args[0], "/monitors", NULL);
    return change("POST", path, body, "added");
}

static int do_monitors_remove(char **args)
{
    char path[CTL_PATH_SIZE];

    make_path(path, "durpina", args[0], "/monitors", args[1]);
    return change("DELETE", path, NULL, "removed");
}

static int do_vips(char **args)
{
    (void) args;
    return get("/api/9/durpina/vips", ctl_print_vips);
}

static int do_vip_add(char **args)
{
    json_t *body = ctl_vip_json(args);

    return body == NULL ? CTL_USAGE : change("POST", "/api/9/durpina/vips", body, "added");
}

static int do_vip_remove(char **args)
{
    char path[CTL_PATH_SIZE];
    int err = ctl_vip_path(args[0], path);

    return err != 0 ? err : change("DELETE", path, NULL, "removed");
}

static int do_raw(char **args)
{
    json_t *answer;
    int err;

    if (args[1][0] != '/' || strlen(args[1]) >= CTL_PATH_SIZE) {
        fprintf(stderr, "durpinactl: \"%s\" is no path such as /api/9/durpina\n", args[1]);
        return CTL_USAGE;
    }
    err = ctl_request(options.socket, args[0], args[1], args[2], &answer);
    return err != 0 ? err : print_json(answer);
}

#define ANY 99

static const struct command {
    const char *name; /* one or two words */
    const char *args;
    const char *help;
    int min_args, max_args;
    int (*run)(char **args);
} commands[] = {
    {"status", "", "the controller and how full its maps are", 0, 0, do_status},
    {"list", "", "all upstreams", 0, 0, do_list},
    {"show", "UPSTREAM", "its servers, their addresses and its monitors", 1, 1, do_show},
    {"kernel", "[UPSTREAM]", "programs in the kernel; what they count of its peers", 0, 1,
     do_kernel},
    {"create", "UPSTREAM", "an upstream that no nginx names", 1, 1, do_create},
    {"delete", "UPSTREAM", "likewise", 1, 1, do_delete},
    {"add", "UPSTREAM 'SERVER-LINE'", "a server, as in nginx: 'host:80 weight=5'", 2, ANY, do_add},
    {"remove", "UPSTREAM SERVER", "requests in flight end, new ones go elsewhere", 2, 2, do_remove},
    {"weight", "UPSTREAM SERVER N", "0 to 65535; 0 drains", 3, 3, do_weight},
    {"up", "UPSTREAM SERVER", "takes requests again", 2, 2, do_state},
    {"down", "UPSTREAM SERVER", "takes none until you say up", 2, 2, do_state},
    {"drain", "UPSTREAM SERVER", "takes no new ones", 2, 2, do_state},
    {"maint", "UPSTREAM SERVER", "down, and not checked but by agents", 2, 2, do_state},
    {"reset", "UPSTREAM SERVER", "back to what the file or the call said", 2, 2, do_act},
    {"resolve", "UPSTREAM SERVER", "looks its name up now", 2, 2, do_act},
    {"checks", "UPSTREAM", "what each monitor finds, and the last result", 1, 1, do_checks},
    {"history", "UPSTREAM", "the last changes of state, each with its cause", 1, 1, do_history},
    {"monitors list", "UPSTREAM", "its health checks", 1, 1, do_monitors_list},
    {"monitors add", "UPSTREAM TYPE [OPTION=VALUE...]", "'http uri=/alive interval=2s', 'tcp'", 2,
     ANY, do_monitors_add},
    {"monitors remove", "UPSTREAM ID", "", 2, 2, do_monitors_remove},
    {"vips", "", "virtual endpoints: connects to them go to peers", 0, 0, do_vips},
    {"vip add", "ADDRESS:PORT[/udp] upstream=NAME [algorithm=WORD]", "by round-robin or ip-hash", 2,
     3, do_vip_add},
    {"vip remove", "ADDRESS:PORT[/udp]", "connects go on as they are", 1, 1, do_vip_remove},
    {"raw", "METHOD PATH [BODY]", "any request of the API: raw GET /api/9/durpina", 2, 3, do_raw},
};

/* --- command line ----------------------------------------------------------------------------- */

static void print_help(void)
{
    puts("Usage: durpinactl [OPTION]... COMMAND\n"
         "Shows and changes the upstreams of a running durpinad. Changes need root, or a user or\n"
         "group that durpinad.conf allows.\n\n"
         "Options:\n"
         "  --socket PATH   of the controller; default $DURPINA_SOCKET, else " SOCKET_DEFAULT "\n"
         "  --json          print what the API answers\n"
         "  --version, --help\n\n"
         "Commands (SERVER is a name as shown, host:port, or an id):");
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        int width =
            printf("  %s%s%s", commands[i].name, *commands[i].args ? " " : "", commands[i].args);

        if (*commands[i].help != '\0')
            printf("%*s%s", width < 34 ? 34 - width : 2, "", commands[i].help);
        putchar('\n');
    }
    puts("\nExit codes: 0 done, 1 refused by the controller, 2 wrong usage, 3 no controller.");
}

/* The command that argv begins with; *ret_words: of its name. */
static const struct command *find_command(int argc, char **argv, int *ret_words)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        const char *name = commands[i].name;
        size_t len = strcspn(name, " ");

        if (argc < 1 || strlen(argv[0]) != len || strncmp(argv[0], name, len) != 0)
            continue;
        if (name[len] == '\0' || (argc > 1 && strcmp(argv[1], name + len + 1) == 0)) {
            *ret_words = name[len] == '\0' ? 1 : 2;
            return &commands[i];
        }
    }
    return NULL;
}

static int usage(const char *text, const char *what)
{
    fprintf(stderr, "durpinactl: %s%s; see durpinactl --help\n", text, what);
    return CTL_USAGE;
}

int main(int argc, char **argv)
{
    const char *from_environment = getenv("DURPINA_SOCKET");
    const struct command *command;
    int words, n, status, i = 1;

    options.socket =
        from_environment != NULL && *from_environment != '\0' ? from_environment : SOCKET_DEFAULT;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            options.json = true;
        } else if (strncmp(argv[i], "--socket=", 9) == 0) {
            options.socket = argv[i] + 9;
        } else if (strcmp(argv[i], "--socket") == 0 && i + 1 < argc) {
            options.socket = argv[++i];
        } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help();
            return 0;
        } else if (strcmp(argv[i], "--version") == 0) {
            puts("durpinactl " DURPINA_VERSION);
            return 0;
        } else {
            return usage("unknown option or missing value: ", argv[i]);
        }
    }
    if (i == argc)
        return usage("no command", "");
    command = find_command(argc - i, argv + i, &words);
    if (command == NULL)
        return usage("there is no command ", argv[i]);
    n = argc - i - words;
    /* An empty name would ask for the list that it is missing from. */
    if (n < command->min_args || n > command->max_args || (n > 0 && *argv[i + words] == '\0')) {
        fprintf(stderr, "Usage: durpinactl %s %s\n", command->name, command->args);
        return CTL_USAGE;
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    status = command->run(argv + i + words);
    if (fflush(stdout) != 0) {
        fprintf(stderr, "durpinactl: the answer cannot be written: %s\n", strerror(errno));
        return CTL_REFUSED;
    }
    return status;
}
