package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// release is set by the linker: -X frond/internal/cli.release=1.2.3.
var release string

// build is what a binary was made of.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the source, with "+" if it was changed
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (b build) String() string {
	text := "frond " + b.Version
	if b.Revision != "" {
		text += " (" + b.Revision + ")"
	}
	return text + " " + b.Go + " " + b.Platform
}

func version() build {
	b := build{Version: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if ok && b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Version == "" {
		b.Version = "(devel)"
	}
	if ok {
		b.Revision = revision(info.Settings)
	}
	return b
}

func revision(settings []debug.BuildSetting) string {
	const short = 12
	var id, changed string
	for _, s := range settings {
		switch {
		case s.Key == "vcs.revision":
			id = s.Value[:min(short, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+"
		}
	}
	if id == "" {
		return ""
	}
	return id + changed
}

func versionCommand() *cobra.Command {
	var form format
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print what this binary was built from",
		GroupID: groupTry,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if form == formatTable {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), version())
				return err
			}
			text, err := form.encode(version())
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	}
	form.flag(cmd)
	return cmd
}
