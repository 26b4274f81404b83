/* A look at configuration text before libconfig's own.
 *
 * libconfig 1.5 follows @include, wraps an integer over 31 bits that lacks its L, ends in silence inside a comment that
 * never closes, reads "12abc = 3" as two settings, compares each key of a group with all others, recurses with the
 * text's nesting, and leaks the string at which a syntax error stops it. A pushed profile is a stranger's text, so all
 * of that is refused here, by line, and the whole grammar is walked: what passes is left to libconfig to build (and to
 * find a key given twice, or an array of mixed types). The tokens are libconfig's: strings, three kinds of comment,
 * names, numbers, punctuation.
 */
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "conf_impl.h"
#include "utf8.h"

/* What may come next. In a group: a key, its =, its value, and once that is read an optional ; or , and the next key.
 * In a list or array: a value or the end, and once one is read a comma or the end. */
typedef enum want { WANT_KEY, WANT_EQUALS, WANT_VALUE, WANT_VALUE_OR_END, WANT_MORE } want;

typedef struct level {
    char opened;   /* '{' (also the root), '(' or '[' */
    unsigned keys; /* of a group */
} level;

typedef struct scan {
    const char *name;
    const char *text;
    size_t length;
    size_t at;
    unsigned line;
    unsigned items;
    want want;
    int after_string; /* strings side by side are one */
    unsigned depth;
    level levels[PD_CONF_MAX_DEPTH + 1];
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

/* Refuses the token that starts at the given place and ends here. */
static pd_status misplaced(const scan *s, size_t start)
{
    static const char *const places[] = {[WANT_KEY] = "a key",
                                         [WANT_EQUALS] = "a =",
                                         [WANT_VALUE] = "a value",
                                         [WANT_VALUE_OR_END] = "a value",
                                         [WANT_MORE] = "a comma or the end of the list"};
    int group = s->levels[s->depth].opened == '{';
    const char *place = s->want == WANT_MORE && group ? places[WANT_KEY] : places[s->want];
    if (start >= s->length)
        return pd_fail(s->err, PD_INVALID_ARGUMENT, "%s:%u: ends where %s belongs", s->name, s->line, place);
    size_t length = s->at > start ? s->at - start : pd_utf8_step(s->text + start, s->length - start);
    if (length > 32) length = 32;
    while (length > 1 && !pd_utf8_valid(s->text + start, length))
        length--;
    return pd_fail(s->err, PD_INVALID_ARGUMENT, "%s:%u: %.*s where %s belongs", s->name, s->line, (int)length,
                   s->text + start, place);
}

/* A scalar has been read, or a group or list is complete. */
static pd_status take_value(scan *s, size_t start)
{
    if (s->want != WANT_VALUE && s->want != WANT_VALUE_OR_END) return misplaced(s, start);
    s->want = WANT_MORE;
    s->items++;
    return PD_OK;
}

static pd_status scan_string(scan *s)
{
    unsigned opened = s->line;
    size_t start = s->at;
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
    if (s->after_string && s->want == WANT_MORE) return PD_OK;
    s->after_string = 1;
    return take_value(s, start);
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
    if (!whole) return take_value(s, start);
    uint64_t limit = wide ? (uint64_t)INT64_MAX : (uint64_t)INT32_MAX;
    if (!overflow && magnitude <= limit + (unsigned)negative) return take_value(s, start);
    if (wide || overflow || magnitude > (uint64_t)INT64_MAX)
        return pd_fail(s->err, PD_INVALID_ARGUMENT, "%s:%u: the integer %.*s does not fit in 64 bits",
                       s->name, s->line, shown, s->text + start);
    return pd_fail(s->err, PD_INVALID_ARGUMENT, "%s:%u: the integer %.*s is over 31 bits: write %.*sL",
                   s->name, s->line, shown, s->text + start, shown, s->text + start);
}

/* A key, or one of the two words that are values. */
static pd_status scan_name(scan *s)
{
    size_t start = s->at;
    while (starts_name(peek(s, 0)) || is_digit(peek(s, 0)) || peek(s, 0) == '-')
        s->at++;
    size_t length = s->at - start;
    const char *name = s->text + start;
    int word =
        (length == 4 && !strncasecmp(name, "true", 4)) || (length == 5 && !strncasecmp(name, "false", 5));
    if (word) return take_value(s, start);
    level *in = &s->levels[s->depth];
    if (name[0] == '_' || in->opened != '{' || (s->want != WANT_KEY && s->want != WANT_MORE))
        return misplaced(s, start);
    if (++in->keys > PD_CONF_MAX_KEYS)
        return pd_fail(s->err, PD_INVALID_ARGUMENT, "%s:%u: a group of more than %d keys", s->name, s->line,
                       PD_CONF_MAX_KEYS);
    s->want = WANT_EQUALS;
    return PD_OK;
}

static pd_status open_level(scan *s, int c)
{
    if (s->levels[s->depth].opened == '[') return refuse(s, "an array holds scalars only: write a list ( )");
    pd_status status = take_value(s, s->at);
    if (status != PD_OK) return status;
    if (++s->depth > PD_CONF_MAX_DEPTH)
        return pd_fail(s->err, PD_INVALID_ARGUMENT, "%s:%u: nested deeper than %d levels", s->name, s->line,
                       PD_CONF_MAX_DEPTH);
    s->levels[s->depth] = (level){.opened = (char)c};
    s->want = c == '{' ? WANT_KEY : WANT_VALUE_OR_END;
    return PD_OK;
}

static pd_status close_level(scan *s, int c)
{
    char opened = s->levels[s->depth].opened;
    int fits = (opened == '{' && c == '}') || (opened == '(' && c == ')') || (opened == '[' && c == ']');
    if (s->depth == 0 || !fits || s->want == WANT_EQUALS || s->want == WANT_VALUE) return misplaced(s, s->at);
    s->depth--;
    s->want = WANT_MORE;
    return PD_OK;
}

static pd_status scan_punctuation(scan *s, int c)
{
    pd_status status = PD_OK;
    int group = s->levels[s->depth].opened == '{';
    if (c == '{' || c == '(' || c == '[')
        status = open_level(s, c);
    else if (c == '}' || c == ')' || c == ']')
        status = close_level(s, c);
    else if ((c == '=' || c == ':') && s->want == WANT_EQUALS)
        s->want = WANT_VALUE;
    else if ((c == ',' || c == ';') && s->want == WANT_MORE && group)
        s->want = WANT_KEY;
    else if (c == ',' && s->want == WANT_MORE)
        s->want = WANT_VALUE;
    else if (c == '@')
        status = refuse(s, "@include is refused");
    else
        status = misplaced(s, s->at);
    s->at++;
    return status;
}

static pd_status scan_token(scan *s)
{
    int c = peek(s, 0), next = peek(s, 1);
    if (c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\n') {
        s->line += c == '\n';
        s->at++;
        return PD_OK;
    }
    if (c == '#' || (c == '/' && next == '/')) {
        skip_line_comment(s);
        return PD_OK;
    }
    if (c == '/' && next == '*') return skip_block_comment(s);
    if (c == '"') return scan_string(s);
    s->after_string = 0;
    if (starts_name(c)) return scan_name(s);
    if (is_digit(c) || ((c == '-' || c == '+' || c == '.') && (is_digit(next) || next == '.')))
        return scan_number(s);
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
    s.levels[0].opened = '{';
    pd_status status = scan_bytes(&s);
    s.at = 0;
    s.line = 1;
    while (status == PD_OK && s.at < s.length) {
        status = scan_token(&s);
        if (status == PD_OK && s.items > PD_CONF_MAX_ITEMS)
            status = pd_fail(err, PD_INVALID_ARGUMENT, "%s:%u: more than %d settings and elements", name,
                             s.line, PD_CONF_MAX_ITEMS);
    }
    if (status == PD_OK && (s.depth > 0 || s.want == WANT_EQUALS || s.want == WANT_VALUE))
        status = misplaced(&s, s.length);
    return status;
}
