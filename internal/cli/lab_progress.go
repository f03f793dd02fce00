package cli

import (
	"fmt"
	"io"
)

// progress shows what is being done: on one line that changes if w is a
// terminal, else with a line per step.
type progress struct {
	w        io.Writer
	terminal bool
	shown    string // the step on the last line
}

func newProgress(w io.Writer) *progress { return &progress{w: w, terminal: isTerminal(w)} }

func (p *progress) step(step string, done, total int) {
	if p.terminal {
		_, _ = fmt.Fprintf(p.w, "\r\x1b[K%s … %d of %d", step, done, total)
	} else if step != p.shown {
		_, _ = fmt.Fprintf(p.w, "%s (%d)\n", step, total)
	}
	p.shown = step
}

// end clears the line for what comes next.
func (p *progress) end() {
	if p.terminal && p.shown != "" {
		_, _ = fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.shown = ""
}
