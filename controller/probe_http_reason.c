/* SPDX-License-Identifier: MIT */
/* libcurl's failures in words for an operator. */
#include <errno.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <string.h>

#include "probe_http.h"

/* Of OpenSSL's result of a verification, as libcurl hands it on. */
static const char *certificate_fault(long verify_result)
{
    switch (verify_result) {
    case X509_V_OK:
    case X509_V_ERR_UNSPECIFIED: /* not set: libcurl compares the name before it asks OpenSSL */
        return "certificate is for another name";
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return "certificate is not valid yet";
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return "certificate has expired";
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        return "certificate is self-signed";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        return "certificate is of an unknown authority";
    case X509_V_ERR_CERT_REVOKED:
        return "certificate is revoked";
    default:
        return NULL;
    }
}

/* The words of OpenSSL in "error:0A00010B:SSL routines::wrong version number". */
static const char *tls_fault(const char *error)
{
    const char *words = strstr(error, "routines:");

    words = words != NULL ? strchr(words + strlen("routines:"), ':') : NULL;
    if (words != NULL)
        return words + 1;
    return strstr(error, "SSL_ERROR_SYSCALL") != NULL ? "connection closed" : error;
}

/* Those of nghttp2 in "h2_...: nghttp2_...() returned -904:Flooding was detected"; else NULL. */
static const char *http2_fault(const char *error)
{
    const char *words = strstr(error, "nghttp2_") != NULL ? strrchr(error, ':') : NULL;

    return words != NULL ? words + 1 : NULL;
}

static const char *words_of(CURLcode code, bool http2)
{
    switch (code) {
    case CURLE_COULDNT_CONNECT:
        return "connection failed";
    case CURLE_GOT_NOTHING:
        return http2 ? "closed without an answer in HTTP/2" : "closed without an answer";
    case CURLE_PARTIAL_FILE:
        return "answer cut short";
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
        return "answer is not HTTP";
    case CURLE_HTTP2:
        return "answer is not HTTP/2";
    default:
        return curl_easy_strerror(code);
    }
}

void http_done_failed(struct probe_target *target, CURLcode code, long os_errno, long verify_result,
                      const char *error)
{
    const char *words = words_of(code, target->check->http.http2);
    const char *said = *error != '\0' ? error : words, *fault;

    switch (code) {
    case CURLE_COULDNT_CONNECT:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
        fault = http2_fault(error);
        if (os_errno == EPIPE)
            probe_done(target, target->no_answer, "%s", words_of(CURLE_GOT_NOTHING, false));
        else if (os_errno != 0)
            probe_done_errno(target, (int) -os_errno);
        else if (fault != NULL)
            probe_done(target, target->no_answer, "HTTP/2: %s", fault);
        else
            probe_done(target, target->no_answer, "%s",
                       code == CURLE_COULDNT_CONNECT ? words : said);
        break;
    case CURLE_SSL_CONNECT_ERROR:
        probe_done(target, target->no_answer, "TLS handshake failed: %s", tls_fault(said));
        break;
    case CURLE_PEER_FAILED_VERIFICATION:
        fault = certificate_fault(verify_result);
        probe_done(target, target->no_answer, "%s", fault != NULL ? fault : said);
        break;
    case CURLE_SSL_CERTPROBLEM: /* our own files */
        probe_done(target, PROBE_UNDECIDED, "tls_cert or tls_key: %s", said);
        break;
    case CURLE_SSL_CACERT_BADFILE:
        probe_done(target, PROBE_UNDECIDED, "%s", said);
        break;
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM: /* says which error */
        probe_done(target, target->no_answer, "%s", said);
        break;
    default:
        probe_done(target, target->no_answer, "%s", words);
    }
}
