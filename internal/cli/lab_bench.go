package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"frond/internal/versus"
)

// quickly is how often each of the quick events is measured.
const quickly = 3

// benchFlags are what lab bench is asked for.
type benchFlags struct {
	events       []string
	repeat       int
	quick, alone bool
	into         string
}

func labBenchCommand() *cobra.Command {
	var flags benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure frond beside FRR and keepalived on this machine",
		Long: `Measure frond beside an installed FRR on this machine, its elected gateway beside
keepalived: the same topology and guests in namespaces, the same events, in turns. Traffic of 1,000 packets/s in
each of eight flows shows what is lost; the worst flow counts. Each cell is
median [minimum–maximum]. FRR runs twice, with its datacenter profile and tuned;
goals compare with the better.

What fails is told in the table, with its reason; the exit code is 1 if it was
frond.

The table is Markdown. --into keeps the results as JSON as well: rows that are
there of earlier runs and are not measured now stay, so that the events can be
measured one by one. It brings up labs of its own, and removes them.`,
		Example: "  frond lab bench --quick\n  frond lab bench --event cut --repeat 20\n  frond lab bench --alone",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := newProgress(cmd.ErrOrStderr())
			defer p.end()
			report, measured, err := bench(cmd.Context(), flags, p.step)
			p.end()
			if len(measured) == 0 {
				return err
			}
			return errors.Join(printf(cmd, "%s", report.Markdown()), err, versus.Failure(measured))
		},
	}
	cmd.Flags().StringSliceVar(&flags.events, "event", nil, "which events to measure (default: all)")
	cmd.Flags().IntVar(&flags.repeat, "repeat", 10, "how often to measure each")
	cmd.Flags().BoolVar(&flags.quick, "quick", false, "three events, three times each: within three minutes")
	cmd.Flags().BoolVar(&flags.alone, "alone", false, "frond alone, without FRR")
	cmd.Flags().StringVar(&flags.into, "into", "", "file to keep the results in, as JSON")
	return cmd
}

// bench gives the report, and of its results those that were measured now.
func bench(ctx context.Context, flags benchFlags, progress func(step string, done, total int)) (versus.Report, []versus.Result, error) {
	if flags.quick {
		flags.repeat = quickly
		if len(flags.events) == 0 {
			flags.events = versus.Quick()
		}
	}
	if flags.repeat < 1 {
		return versus.Report{}, nil, usageError{errors.New("--repeat: want at least 1")}
	}
	events, err := versus.Choose(flags.events)
	if err != nil {
		return versus.Report{}, nil, usageError{err}
	}
	older, err := readReport(flags.into)
	if err != nil {
		return versus.Report{}, nil, err
	}
	binary, err := os.Executable()
	if err != nil {
		return versus.Report{}, nil, fmt.Errorf("find this program: %w", err)
	}
	cfg := versus.Config{Binary: binary, Events: events, Contenders: []versus.Contender{versus.Frond()}, Repeat: flags.repeat, Progress: progress}
	report := versus.Report{Machine: versus.ThisMachine(release)}
	if !flags.alone {
		if report.Machine.FRR, err = versus.FRRVersion(ctx); err != nil {
			return versus.Report{}, nil, err
		}
		if versus.NeedsKeepalived(events) {
			if report.Machine.Keepalived, err = versus.KeepalivedVersion(ctx); err != nil {
				return versus.Report{}, nil, err
			}
		}
		cfg.Contenders = append(cfg.Contenders, versus.FRR()...)
	}
	results, err := versus.Run(ctx, cfg)
	report.Machine.FRR = cmp.Or(report.Machine.FRR, older.Machine.FRR)
	report.Machine.Keepalived = cmp.Or(report.Machine.Keepalived, older.Machine.Keepalived)
	report.Results = versus.Merge(older.Results, results)
	if flags.into != "" && len(results) > 0 { // interrupted or not
		err = errors.Join(err, writeReport(flags.into, report))
	}
	return report, results, err
}

// readReport reads what an earlier run has left; nothing is no error.
func readReport(file string) (report versus.Report, err error) {
	text, err := os.ReadFile(file)
	if file == "" || errors.Is(err, fs.ErrNotExist) {
		return report, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &report)
	}
	if err != nil {
		return report, fmt.Errorf("read earlier results: %w", err)
	}
	return report, nil
}

func writeReport(file string, report versus.Report) error {
	text, err := formatJSON.encode(report)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // for everybody to read
		return fmt.Errorf("keep the results: %w", err)
	}
	return nil
}
