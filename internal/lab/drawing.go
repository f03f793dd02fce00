package lab

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"frond/internal/fabric"
)

// Draw draws the fabric: spines above, all other nodes below, a line for each
// spine that its cables branch off. What does not fit into that, and shapes
// without spines, are listed cable by cable.
//
//	      spine1     spine2
//	        │          │
//	  ●─────●────●─────┼────●
//	  ●──────────●─────●────●
//	  │          │          │
//	leaf1      leaf2      leaf3
func Draw(t Topology, states States) string {
	d := layOut(t)
	var rest []Cable
	for _, c := range t.Cables {
		if !d.add(c, states[c.ID]) {
			rest = append(rest, c)
		}
	}
	var b strings.Builder
	if len(d.spines) > 0 && len(d.others) > 0 {
		d.draw(&b)
		b.WriteString(legend(t.Cables, states))
	}
	for _, c := range rest {
		fmt.Fprintf(&b, "%s ── %s", c.A, c.B)
		if s := states[c.ID]; s != (State{}) {
			fmt.Fprintf(&b, "  (%s)", s)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// drawing is a grid: each spine has a row, each node a column.
type drawing struct {
	spines, others []string
	column         map[string]int // of the node's vertical line, in characters
	row            map[string]int // of the spine's horizontal line
	junctions      map[[2]int]*junction
	width          int
}

// junction is where the cables of a spine and another node are.
type junction struct {
	cables int
	worst  State
}

func layOut(t Topology) *drawing {
	d := &drawing{column: map[string]int{}, row: map[string]int{}, junctions: map[[2]int]*junction{}}
	for _, n := range t.Nodes {
		if n.Role == fabric.Spine {
			d.row[n.Name] = len(d.spines)
			d.spines = append(d.spines, n.Name)
		} else {
			d.others = append(d.others, n.Name)
		}
	}
	pitch := max(widest(d.others)+2, 8)
	spinePitch := pitch
	// Spines wider than leafs spread the leafs too: both rows have to fit.
	if need := len(d.spines) * (widest(d.spines) + 2); need > len(d.others)*pitch {
		pitch = (need + max(len(d.others), 1) - 1) / max(len(d.others), 1)
	}
	d.width = len(d.others) * pitch
	if len(d.spines) > 0 {
		spinePitch = d.width / len(d.spines)
	}
	taken := map[int]bool{}
	for i, name := range d.others {
		d.column[name] = i*pitch + pitch/2
		taken[d.column[name]] = true
	}
	for i, name := range d.spines {
		// A column of its own, so that no line runs into another's.
		col := i*spinePitch + spinePitch/2
		for taken[col] {
			col++
		}
		taken[col] = true
		d.column[name] = col
	}
	d.width += pitch
	return d
}

func widest(names []string) (w int) {
	for _, n := range names {
		w = max(w, utf8.RuneCountInString(n))
	}
	return w
}

// add draws a cable between a spine and another node; it refuses others.
func (d *drawing) add(c Cable, s State) bool {
	spine, other := c.A.Node, c.B.Node
	if _, ok := d.row[spine]; !ok {
		spine, other = other, spine
	}
	row, ok := d.row[spine]
	if _, both := d.row[other]; !ok || both {
		return false
	}
	at := [2]int{row, d.column[other]}
	if d.junctions[at] == nil {
		d.junctions[at] = &junction{}
	}
	j := d.junctions[at]
	j.cables++
	j.worst = j.worst.or(s)
	return true
}

func (d *drawing) draw(b *strings.Builder) {
	d.names(b, d.spines)
	d.line(b, func(col int) rune { return d.spineLine(col, -1) })
	for row := range d.spines {
		d.line(b, func(col int) rune { return d.cell(row, col) })
	}
	d.line(b, func(col int) rune { return d.otherLine(col, len(d.spines)) })
	d.names(b, d.others)
}

func (d *drawing) names(b *strings.Builder, names []string) {
	line := []rune{}
	for _, n := range names {
		start := max(d.column[n]-utf8.RuneCountInString(n)/2, 0)
		for len(line) < start {
			line = append(line, ' ')
		}
		line = append(line, []rune(n)...)
	}
	b.WriteString(string(line) + "\n")
}

func (d *drawing) line(b *strings.Builder, at func(col int) rune) {
	line := make([]rune, d.width)
	for col := range line {
		line[col] = at(col)
	}
	b.WriteString(strings.TrimRight(string(line), " ") + "\n")
}

// cell is one character of a spine's row.
func (d *drawing) cell(row, col int) rune {
	first, last := d.span(row)
	if j := d.junctions[[2]int{row, col}]; j != nil {
		return j.mark()
	}
	if col == d.column[d.spines[row]] {
		return '●'
	}
	vertical := d.spineLine(col, row) == '│' || d.otherLine(col, row) == '│'
	switch inside := col > first && col < last; {
	case vertical && inside:
		return '┼'
	case vertical:
		return '│'
	case inside:
		return '─'
	}
	return ' '
}

// span is where a spine's row begins and ends.
func (d *drawing) span(row int) (first, last int) {
	first = d.column[d.spines[row]]
	last = first
	for at := range d.junctions {
		if at[0] == row {
			first, last = min(first, at[1]), max(last, at[1])
		}
	}
	return first, last
}

// spineLine is the line from a spine down to its row.
func (d *drawing) spineLine(col, row int) rune {
	i := slices.IndexFunc(d.spines, func(n string) bool { return d.column[n] == col })
	if i > row {
		return '│'
	}
	return ' '
}

// otherLine is the line from a node up to the highest row that it is cabled to.
func (d *drawing) otherLine(col, row int) rune {
	for above := range row {
		if d.junctions[[2]int{above, col}] != nil {
			return '│'
		}
	}
	return ' '
}

func (j *junction) mark() rune {
	switch {
	case j.worst.Cut:
		return '╳'
	case j.worst != State{}:
		return '○'
	case j.cables > 9:
		return '#'
	case j.cables > 1:
		return '0' + rune(j.cables)
	}
	return '●'
}

// legend explains the marks that are not plain, and names what is broken.
func legend(cables []Cable, states States) string {
	var broken []string
	for _, c := range cables {
		if s := states[c.ID]; s != (State{}) {
			broken = append(broken, c.String()+" "+s.String())
		}
	}
	if len(broken) == 0 {
		return ""
	}
	return "╳ cut, ○ muted: " + strings.Join(broken, "; ") + "\n"
}
