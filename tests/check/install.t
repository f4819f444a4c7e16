#!/bin/bash
# SPDX-License-Identifier: MIT
# make install puts everything where the documentation says; make help knows every target.
. "$(dirname "$0")/../lib/harness.sh"
cd "$ROOT" || exit 1

make_quietly() {
    make --no-print-directory "$@" >"$T/make.log" 2>&1
}

ok "install_succeeds" make_quietly install DESTDIR="$T/root" PREFIX=/usr
is "everything_is_installed" "$(cd "$T/root" && find . -type f | sort)" "$(sort <<END
./etc/durpina/durpinad.conf
./lib/systemd/system/durpinad.service
./usr/bin/durpinactl
./usr/lib/nginx/modules/ngx_http_durpina_module.so
./usr/lib/sysusers.d/durpina.conf
./usr/sbin/durpinad
./usr/share/nginx/modules-available/mod-http-durpina.conf
$(cd lua && find durpina -name '*.lua' -printf './usr/share/lua/5.1/%p\n')
END
)"
is "second_make_builds_nothing" "$(make --no-print-directory)" ""
ok "installed_unit_is_valid" grep -qx 'ExecStart=/usr/sbin/durpinad' \
    "$T/root/lib/systemd/system/durpinad.service"
ok "installed_configuration_is_accepted" "$BUILD/durpinad" -t -c "$T/root/etc/durpina/durpinad.conf"

# Every setting that durpinad has is in the example, and every line of the example is right.
sed 's/^#\([a-z]\)/\1/; s/ deploy / root /; s/^user durpina;/user nobody;/' \
    packaging/durpinad.conf >"$T/all.conf"
ok "every_line_of_the_example_is_accepted" "$BUILD/durpinad" -t -c "$T/all.conf"
is "the_example_shows_every_setting" \
    "$(sed -n 's/^\([a-z_]*\) .*;/\1/p' "$T/all.conf" | sort)" \
    "$("$BUILD/durpinad" --help |
        sed -n '/^Settings/,/^Signals/s/^[* ][+ ]\([a-z_][a-z_]*\) .*/\1/p' | sort)"

echo "log_level debug;" >"$T/root/etc/durpina/durpinad.conf"
make_quietly install DESTDIR="$T/root" PREFIX=/usr
is "install_keeps_a_configuration_that_is_there" "$(cat "$T/root/etc/durpina/durpinad.conf")" \
    "log_level debug;"
ok "uninstall_succeeds" make_quietly uninstall DESTDIR="$T/root" PREFIX=/usr
is "uninstall_leaves_the_configuration_only" "$(cd "$T/root" && find . -type f)" \
    "./etc/durpina/durpinad.conf"
is "help_lists_every_target" \
    "$(make --no-print-directory help | awk '{print $2}' | sort | xargs)" \
    "$(sed -n 's/^\.PHONY: //p' Makefile | grep -vxE 'FORCE|tests' | sort | xargs)"
done_testing
