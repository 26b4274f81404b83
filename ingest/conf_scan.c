/* A look at configuration text before libconfig's own.
 *
 * libconfig 1.5 follows @include, wraps an integer over 31 bits that lacks its L, ends in silence inside a comment that
 * never closes, reads "12abc = 3" as two settings, compares each key of a group with all others, and recurses with the
 * text's nesting. A pushed profile is a stranger's text, so all of that is refused here, by line. The tokens are
 * libconfig's: strings, three kinds of comment, names, numbers, punctuation. What is merely wrong is left to its parser.
 */
#include <stdint.h>
#include <string.h>

#include "conf_impl.h"
#include "utf8.h"

typedef struct scan {
    const char *name;
    const char *text;
    size_t length;
    size_t at;
    unsigned line;
    unsigned depth;
    unsigned items;
    unsigned keys[PD_CONF_MAX_DEPTH + 1]; /* of the open group at each depth */
    pd_error *err;
} scan;

static int peek(const scan *s, size_t ahead)
{
    return s->at + ahead < s->length ? (unsigned char)s->text[s->at + ahead] : -1;
}

static int is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static int hex_digit(int c)
{
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static int starts_name(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '*' || c == '_';
}

static pd_status refuse(const scan *s, const char *what)
{
    return pd_fail(s->err, PD_INVALID_ARGUMENT, "%s:%u: %s", s->name, s->line, what);
}

static pd_status skip_string(scan *s)
{
    unsigned opened = s->line;
    s->at++;
    while (s->at < s->length && s->text[s->at] != '"') {
        if (s->text[s->at] == '\n') s->line++;
        if (s->text[s->at] == '\\') {
            if (peek(s, 1) == 'x' && peek(s, 2) == '0' && peek(s, 3) == '0')
                return refuse(s, "a string holds a NUL byte");
            if (peek(s, 1) == '\n') s->line++;
            s->at++;
        }
        s->at++;
    }
    if (s->at >= s->length) {
        s->line = opened;
        return refuse(s, "a string is never closed");
    }
    s->at++;
    return PD_OK;
}

static pd_status skip_block_comment(scan *s)
{
    unsigned opened = s->line;
    s->at += 2;
    while (s->at < s->length && !(s->text[s->at] == '*' && peek(s, 1) == '/')) {
        if (s->text[s->at] == '\n') s->line++;
        s->at++;
    }
    if (s->at >= s->length) {
        s->line = opened;
        return refuse(s, "a comment is never closed");
    }
    s->at += 2;
    return PD_OK;
}

static void skip_line_comment(scan *s)
{
    while (s->at < s->length && s->text[s->at] != '\n')
        s->at++;
}

/* The digits of an integer, saturated; at is left behind them. */
static uint64_t scan_digits(scan *s, unsigned base, int *overflow)
{
    uint64_t value = 0;
    *overflow = 0;
    for (;; s->at++) {
        int digit = base == 16 ? hex_digit(peek(s, 0)) : is_digit(peek(s, 0)) ? peek(s, 0) - '0' : -1;
        if (digit < 0) return value;
        if (value > (UINT64_MAX - (unsigned)digit) / base) *overflow = 1;
        value = value * base + (unsigned)digit;
    }
}

static pd_status scan_number(scan *s)
{
    size_t start = s->at;
    int negative = peek(s, 0) == '-', overflow = 0, whole = 1, wide = 0;
    if (peek(s, 0) == '-' || peek(s, 0) == '+') s->at++;
    uint64_t magnitude;
    if (peek(s, 0) == '0' && (peek(s, 1) == 'x' || peek(s, 1) == 'X')) {
        s->at += 2;
        magnitude = scan_digits(s, 16, &overflow);
    } else {
        magnitude = scan_digits(s, 10, &overflow);
        if (peek(s, 0) == '.') {
            whole = 0;
            s->at++;
            while (is_digit(peek(s, 0)))
                s->at++;
        }
        if (peek(s, 0) == 'e' || peek(s, 0) == 'E') {
            whole = 0;
            s->at++;
            if (peek(s, 0) == '-' || peek(s, 0) == '+') s->at++;
            while (is_digit(peek(s, 0)))
                s->at++;
        }
    }
    for (int i = 0; whole && i < 2 && peek(s, 0) == 'L'; i++) {
        wide = 1;
        s->at++;
    }
    int shown = (int)(s->at - start < 40 ? s->at - start : 40);
    if (starts_name(peek(s, 0)) || is_digit(peek(s, 0)) || peek(s, 0) == '.')
        return pd_fail(s->err, PD_INVALID_ARGUMENT, "%s:%u: \"%.*s%c\" starts no number", s->name, s->line,
                       shown, s->text + start, peek(s, 0));
    if (!whole) return PD_OK;
    uint64_t limit = wide ? (uint64_t)INT64_MAX : (uint64_t)INT32_MAX;
    if (!overflow && magnitude <= limit + (unsigned)negative) return PD_OK;
    if (wide || overflow || magnitude > (uint64_t)INT64_MAX)
        return pd_fail(s->err, PD_INVALID_ARGUMENT, "%s:%u: the integer %.*s does not fit in 64 bits",
                       s->name, s->line, shown, s->text + start);
    return pd_fail(s->err, PD_INVALID_ARGUMENT, "%s:%u: the integer %.*s is over 31 bits: write %.*sL",
                   s->name, s->line, shown, s->text + start, shown, s->text + start);
}

static pd_status scan_punctuation(scan *s, int c)
{
    if (c == '{' || c == '(' || c == '[') {
        if (++s->depth > PD_CONF_MAX_DEPTH)
            return pd_fail(s->err, PD_INVALID_ARGUMENT, "%s:%u: nested deeper than %d levels", s->name,
                           s->line, PD_CONF_MAX_DEPTH);
        s->keys[s->depth] = 0;
        s->items++;
    } else if (c == '}' || c == ')' || c == ']') {
        if (s->depth > 0) s->depth--;
    } else if (c == '=' || c == ':') {
        if (++s->keys[s->depth] > PD_CONF_MAX_KEYS)
            return pd_fail(s->err, PD_INVALID_ARGUMENT, "%s:%u: a group of more than %d keys", s->name,
                           s->line, PD_CONF_MAX_KEYS);
        s->items++;
    } else if (c == ',') {
        s->items++;
    } else if (c == '@') {
        return refuse(s, "@include is refused");
    }
    if (s->items > PD_CONF_MAX_ITEMS)
        return pd_fail(s->err, PD_INVALID_ARGUMENT, "%s:%u: more than %d settings and elements", s->name,
                       s->line, PD_CONF_MAX_ITEMS);
    s->at++;
    return PD_OK;
}

static pd_status scan_token(scan *s)
{
    int c = peek(s, 0), next = peek(s, 1);
    if (c == '"') return skip_string(s);
    if (c == '#' || (c == '/' && next == '/')) {
        skip_line_comment(s);
        return PD_OK;
    }
    if (c == '/' && next == '*') return skip_block_comment(s);
    if (starts_name(c)) {
        while (starts_name(peek(s, 0)) || is_digit(peek(s, 0)) || peek(s, 0) == '-')
            s->at++;
        return PD_OK;
    }
    if (is_digit(c) || ((c == '-' || c == '+' || c == '.') && (is_digit(next) || next == '.')))
        return scan_number(s);
    if (c == '\n') s->line++;
    return scan_punctuation(s, c);
}

/* The line of the first byte that ends the UTF-8, or holds a NUL. */
static pd_status scan_bytes(scan *s)
{
    while (s->at < s->length) {
        if (s->text[s->at] == 0) return refuse(s, "holds a NUL byte");
        if (s->text[s->at] == '\n') s->line++;
        size_t step = pd_utf8_step(s->text + s->at, s->length - s->at);
        if (step == 0) return refuse(s, "is not UTF-8");
        s->at += step;
    }
    return PD_OK;
}

pd_status pd_conf_scan(const char *name, const char *text, size_t length, pd_error *err)
{
    if (length > PD_CONF_MAX_BYTES)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "%s: %zu bytes, more than the %zu that a configuration may have", name, length,
                       PD_CONF_MAX_BYTES);
    scan s = {.name = name, .text = text, .length = length, .line = 1, .err = err};
    pd_status status = scan_bytes(&s);
    s.at = 0;
    s.line = 1;
    while (status == PD_OK && s.at < s.length)
        status = scan_token(&s);
    return status;
}
