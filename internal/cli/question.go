package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"frond/internal/api"
)

// question is a verb that asks the agent and prints its answer.
type question[T any] struct {
	ask    func(context.Context, *api.Client) (T, error)
	render func(T, view) string
	// verdict is the verb's end once the answer is printed, nil: always fine.
	verdict func(T) error
}

// command is a verb without arguments that asks.
func (q question[T]) command(p program, verb, short, long string) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:               verb,
		Short:             short,
		Long:              long,
		GroupID:           groupAsk,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return q.answer(cmd, p, o) },
	}
	o.flags(cmd)
	return cmd
}

// options are the flags that all questions have.
type options struct {
	target
	form  format
	watch bool
}

func (o *options) flags(cmd *cobra.Command) {
	o.target.flags(cmd)
	o.form.flag(cmd)
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "go on until Ctrl-C: redraw on a terminal, otherwise print what changes")
}

func (q question[T]) answer(cmd *cobra.Command, p program, o options) error {
	client, err := o.client()
	if err != nil {
		return err
	}
	ask := func(ctx context.Context) (T, error) { return q.ask(ctx, client) }
	if o.watch {
		return watch(cmd.Context(), p.watcher(cmd, o.form), ask, q.render)
	}
	value, err := ask(cmd.Context())
	if err != nil {
		return err
	}
	text, err := write(o.form, value, q.render, p.view(cmd.OutOrStdout()))
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(cmd.OutOrStdout(), text); err != nil {
		return err
	}
	if q.verdict == nil {
		return nil
	}
	return q.verdict(value)
}

// write gives an answer in the form that was asked for.
func write[T any](form format, value T, render func(T, view) string, v view) (string, error) {
	if form == formatTable {
		return render(value, v), nil
	}
	return form.encode(value)
}
