// Package cli holds the verbs of the frond command. Each reads its flags and
// arguments, calls what does the work, and prints; docs/cli.md lists them.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"frond/internal/fabric"
)

// The exit codes, stable.
const (
	exitFine  = 0
	exitWrong = 1 // something is wrong, in the fabric or with what was asked for
	exitUsage = 2 // the command line or a document is
)

// Run carries out one command line and returns the process's exit code.
// SIGINT and SIGTERM end what runs in order; a second one ends it at once.
func Run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	context.AfterFunc(ctx, cancel)
	return run(ctx, newRoot(), args, stdin, stdout, stderr)
}

func run(ctx context.Context, root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd() // takes the output for good
	strict(root)
	err := root.ExecuteContext(ctx)
	if text := errorText(err); text != "" {
		_, _ = fmt.Fprintln(stderr, "frond: "+text)
	}
	return exitCode(err)
}

// usageError is a command line that cannot be carried out.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitError ends the process with a code and without a word: all was said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// errUnhealthy is the end of a verb whose output shows what is wrong.
const errUnhealthy = exitError(exitWrong)

func exitCode(err error) int {
	var code exitError
	var usage usageError
	var document *fabric.Error
	var node *fabric.UnknownNodeError
	switch {
	case err == nil:
		return exitFine
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage), errors.As(err, &document), errors.As(err, &node):
		return exitUsage
	}
	return exitWrong
}

// errorText is the error as one line, empty if nothing is to be said.
func errorText(err error) string {
	var code exitError
	switch {
	case err == nil, errors.As(err, &code):
		return ""
	case errors.Is(err, context.Canceled):
		return "interrupted"
	}
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}
