package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// watchInterval is how often a watched question is asked.
const watchInterval = time.Second

// watcher is where and how a question is watched.
type watcher struct {
	program
	form           format
	stdout, stderr io.Writer
}

func (p program) watcher(cmd *cobra.Command, form format) watcher {
	return watcher{program: p, form: form, stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr()}
}

// watch asks again and again until ctx ends, which is its proper end. That
// the agent is away for some time does not end it.
func watch[T any](ctx context.Context, w watcher, ask func(context.Context) (T, error), render func(T, view) string) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	show := changes(w, render)
	if isTerminal(w.stdout) {
		show = redraw(w, render)
	}
	for {
		value, err := ask(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := show(value, err); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// changes prints an answer when it differs from the one before: a table under
// the time, JSON as one line each, YAML as one document each.
func changes[T any](w watcher, render func(T, view) string) func(T, error) error {
	var before []byte
	return func(value T, err error) error {
		if err != nil {
			if text := []byte(errorText(err)); !bytes.Equal(text, before) {
				before = text
				_, _ = fmt.Fprintf(w.stderr, "frond: %s\n", text)
			}
			return nil
		}
		now, err := json.Marshal(value)
		if err != nil || bytes.Equal(now, before) {
			return err
		}
		before = now
		switch w.form {
		case formatJSON:
			_, err = fmt.Fprintf(w.stdout, "%s\n", now)
			return err
		case formatYAML:
			text, err := w.form.encode(value)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(w.stdout, "---\n"+text)
			return err
		}
		v := w.view(w.stdout)
		_, err = fmt.Fprintf(w.stdout, "%s\n%s\n", v.now.Format(time.RFC3339), render(value, v))
		return err
	}
}

// Control sequences, ECMA-48 §8.3.
const (
	clearScreen = "\x1b[H\x1b[2J"
	cursorHome  = "\x1b[H"
	clearLine   = "\x1b[K" // to its end
	clearBelow  = "\x1b[J"
)

// redraw keeps one screen up to date without flicker.
func redraw[T any](w watcher, render func(T, view) string) func(T, error) error {
	begin := clearScreen
	return func(value T, err error) error {
		v := w.view(w.stdout)
		text := ""
		if err == nil {
			text, err = write(w.form, value, render, v)
		}
		if err != nil {
			text = v.paint("frond: "+errorText(err), red) + "\n"
		}
		columns, lines := terminalSize(w.stdout)
		_, err = io.WriteString(w.stdout, begin+fit(text, columns, lines))
		begin = cursorHome
		return err
	}
}

// fit cuts a text to what a screen shows, so that it never scrolls. The last
// line stays free for the cursor.
func fit(text string, columns, lines int) string {
	var b strings.Builder
	n := 0
	for line := range strings.Lines(text) {
		n++
		if lines > 0 && n >= lines {
			break
		}
		b.WriteString(cut(strings.TrimSuffix(line, "\n"), columns) + clearLine + "\n")
	}
	return b.String() + clearBelow
}

// cut shortens a line to so many columns, not counting colours.
func cut(line string, columns int) string {
	if columns <= 0 {
		return line
	}
	seen := 0
	for i := 0; i < len(line); {
		if end := strings.IndexByte(line[i:], 'm'); line[i] == '\x1b' && end > 0 {
			i += end + 1
			continue
		}
		if seen == columns {
			return line[:i] + "\x1b[0m"
		}
		_, size := utf8.DecodeRuneInString(line[i:])
		seen++
		i += size
	}
	return line
}
