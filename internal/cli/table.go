package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// view is what a text is rendered for.
type view struct {
	now    time.Time // ages count to here
	width  int       // columns of the terminal; 0: any width will do
	colour bool
}

// tint is how a text stands out on a terminal, as an SGR parameter (ECMA-48 §8.3.117).
type tint string

const (
	noTint tint = ""
	bold   tint = "1"
	faint  tint = "2"
	red    tint = "31"
	green  tint = "32"
	yellow tint = "33"
)

func (v view) paint(text string, t tint) string {
	if !v.colour || t == noTint || text == "" {
		return text
	}
	return "\x1b[" + string(t) + "m" + text + "\x1b[0m"
}

// column heads a table's column. One that no row fills is not shown.
type column struct {
	name  string
	right bool // aligned, for numbers
}

type cell struct {
	text string
	tint tint
}

// table is rendered with aligned columns; the last one holds free text, which
// wraps at words to fit the view.
type table struct {
	columns []column
	rows    [][]cell
}

const (
	gap        = "  "
	leastText  = 24 // columns that free text needs beside the others
	textIndent = 4  // of free text that goes below instead
)

func (t *table) add(row ...cell) {
	for i := range row {
		row[i].text = printable(row[i].text)
	}
	t.rows = append(t.rows, row)
}

// render gives the table with its head.
func (t *table) render(v view) string {
	head := make([]cell, len(t.columns))
	for c, column := range t.columns {
		head[c] = cell{column.name, faint}
	}
	if last := len(head) - 1; !slices.ContainsFunc(t.rows, func(row []cell) bool { return row[last].text != "" }) {
		head[last].text = ""
	}
	l := t.layout()
	return l.line(v, head) + t.body(v)
}

// body gives the table without its head.
func (t *table) body(v view) string {
	var b strings.Builder
	l := t.layout()
	for _, row := range t.rows {
		b.WriteString(l.line(v, row))
	}
	return b.String()
}

// layout is where a table's columns stand.
type layout struct {
	columns []column
	widths  []int
	shown   []int // indexes of the aligned columns that are not empty
	begin   int   // of the last column, which is not among them
}

func (t *table) layout() layout {
	l := layout{columns: t.columns, widths: make([]int, len(t.columns))}
	for c, column := range t.columns[:len(t.columns)-1] {
		for _, row := range t.rows {
			l.widths[c] = max(l.widths[c], utf8.RuneCountInString(row[c].text))
		}
		if l.widths[c] == 0 {
			continue
		}
		l.widths[c] = max(l.widths[c], utf8.RuneCountInString(column.name))
		l.shown = append(l.shown, c)
		l.begin += l.widths[c] + len(gap)
	}
	return l
}

func (l layout) line(v view, row []cell) string {
	var line strings.Builder
	for _, c := range l.shown {
		text := v.paint(row[c].text, row[c].tint)
		pad := strings.Repeat(" ", l.widths[c]-utf8.RuneCountInString(row[c].text))
		if l.columns[c].right {
			line.WriteString(pad + text + gap)
		} else {
			line.WriteString(text + pad + gap)
		}
	}
	last := row[len(row)-1]
	for i, part := range l.free(v, last.text) {
		if i > 0 {
			line.WriteString("\n")
		}
		indent := len(part) - len(strings.TrimLeft(part, " "))
		line.WriteString(part[:indent] + v.paint(part[indent:], last.tint))
	}
	return trimLines(line.String())
}

// free lays out the last column's text: beside the others, wrapped there, or
// below them; what is not beside them begins with its indent.
func (l layout) free(v view, text string) []string {
	room, indent := v.width-l.begin, l.begin
	if v.width == 0 || text == "" || utf8.RuneCountInString(text) <= room {
		return []string{text}
	}
	var lines []string
	if room < leastText {
		room, indent = v.width-textIndent, textIndent
		lines = []string{""}
	}
	for _, part := range wrap(text, room) {
		if len(lines) > 0 {
			part = strings.Repeat(" ", indent) + part
		}
		lines = append(lines, part)
	}
	return lines
}

func trimLines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}

// wrap breaks a text at spaces; a word longer than width stays whole.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}

// printable makes what a peer said harmless for a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// age is a span of time in its two largest units: 3m12s, 4d3h.
func age(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
}

// since is the age of a moment, empty if there was none.
func (v view) since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return age(v.now.Sub(t))
}

// count is a number with its noun: 1 node, 2 nodes.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
