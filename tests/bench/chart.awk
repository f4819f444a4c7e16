# SPDX-License-Identifier: MIT
# Lines of panel, series, x and y (tabs between) as SVG: a panel for each, both axes logarithmic, a
# curve for each series with its name at its end. Ours are drawn bold.

BEGIN {
    FS = "\t"
    WIDTH = 760; HEIGHT = 420; LEFT = 60; RIGHT = 250; TOP = 40; BOTTOM = 40
    split("#1b6ca8 #c0392b #1e8449 #8e44ad #b9770e #117a65 #7b241c #2c3e50 #a04000 #5b2c6f", color, " ")
}

$4 > 0 {
    if (!($1 in seen)) {
        seen[$1] = ++panels
        title[panels] = $1
    }
    p = seen[$1]
    if (!((p, $2) in series)) {
        series[p, $2] = ++n_series[p]
        name[p, n_series[p]] = $2
    }
    s = series[p, $2]
    n = ++points[p, s]
    x[p, s, n] = log($3) / log(10)
    y[p, s, n] = log($4) / log(10)
    if (n == 1 && s == 1 || x[p, s, n] < x_min[p]) x_min[p] = x[p, s, n]
    if (n == 1 && s == 1 || x[p, s, n] > x_max[p]) x_max[p] = x[p, s, n]
    if (n == 1 && s == 1 || y[p, s, n] < y_min[p]) y_min[p] = y[p, s, n]
    if (n == 1 && s == 1 || y[p, s, n] > y_max[p]) y_max[p] = y[p, s, n]
}

function escaped(text) {
    gsub(/&/, "\\&amp;", text)
    gsub(/</, "\\&lt;", text)
    return text
}
function px(p, value) {
    return LEFT + (x_max[p] > x_min[p] ? (value - x_min[p]) / (x_max[p] - x_min[p]) : 0) * (WIDTH - LEFT - RIGHT)
}
function py(p, value) {
    return top + HEIGHT - BOTTOM - (value - y_min[p]) / (y_max[p] - y_min[p]) * (HEIGHT - TOP - BOTTOM)
}
function floor(value) {
    return int(value) - (value < int(value))
}
function text(at_x, at_y, anchor, style, words) {
    printf "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>%s</text>\n", at_x, at_y, anchor, style, escaped(words)
}
function line(x1, y1, x2, y2) {
    printf "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", x1, y1, x2, y2
}

# Names at the ends of curves, from top to bottom, no closer than their height.
function names(p,    s, i, best, last, at, limit, done) {
    last = -1e9
    for (i = 1; i <= n_series[p]; i++) {
        best = 0
        for (s = 1; s <= n_series[p]; s++)
            if (!((p, s) in done) && (!best || y[p, s, points[p, s]] > y[p, best, points[p, best]]))
                best = s
        done[p, best] = 1
        at = py(p, y[p, best, points[p, best]]) + 4
        limit = top + HEIGHT - BOTTOM - (n_series[p] - i) * 13
        if (at > limit) at = limit
        if (at < last + 13) at = last + 13
        last = at
        text(WIDTH - RIGHT + 8, at, "start", sprintf(" fill=\"%s\"", color[best % 10 + 1]), name[p, best])
    }
}

END {
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"11\">\n",
        WIDTH, panels * HEIGHT + 1
    print "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    for (p = 1; p <= panels; p++) {
        top = (p - 1) * HEIGHT
        y_min[p] = floor(y_min[p])
        if (y_max[p] == y_min[p]) y_max[p]++
        text(LEFT, top + 24, "start", " font-size=\"14\" font-weight=\"bold\"", title[p])
        text(WIDTH - RIGHT, top + HEIGHT - 6, "end", "", "peers")
        for (d = y_min[p]; d <= y_max[p]; d++) {
            line(LEFT, py(p, d), WIDTH - RIGHT, py(p, d))
            text(LEFT - 6, py(p, d) + 4, "end", "", 10 ^ d)
        }
        for (s = 1; s <= n_series[p]; s++) {
            path = ""
            for (n = 1; n <= points[p, s]; n++) {
                path = path sprintf("%s%.1f %.1f", n > 1 ? " L" : "M", px(p, x[p, s, n]), py(p, y[p, s, n]))
                if (s == 1) {
                    text(px(p, x[p, s, n]), top + HEIGHT - BOTTOM + 16, "middle", "", 10 ^ x[p, s, n])
                    line(px(p, x[p, s, n]), top + TOP, px(p, x[p, s, n]), top + HEIGHT - BOTTOM)
                }
            }
            printf "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"%s\"/>\n", path,
                color[s % 10 + 1], name[p, s] ~ /^durpina/ ? 2.5 : 1.2
        }
        names(p)
    }
    print "</svg>"
}
