package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"frond/internal/api"
	"frond/internal/fabric"
	"frond/internal/pki"
)

// target is the agent that a verb asks: by its socket on this machine, or
// that of another node over the network.
type target struct {
	socket   string
	node     string // empty: the socket's
	document string // tells the addresses of nodes
	pki      string // directory of certificates
	cert     string // whose to show; empty: this host's
}

// socketVariable of the environment is the socket that --socket defaults to.
const socketVariable = "FROND_SOCKET"

func (t *target) flags(cmd *cobra.Command) {
	usual := cmp.Or(os.Getenv(socketVariable), api.DefaultSocket)
	flags := cmd.Flags()
	flags.StringVar(&t.socket, "socket", usual, "where the agent answers, or $"+socketVariable)
	flags.StringVar(&t.node, "node", "", "ask that node's agent over the network, with a certificate")
	flags.StringVar(&t.cert, "cert", "", "whose certificate to show over the network (default: the host name)")
	pkiFlags(cmd, &t.document, &t.pki)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if flags.Changed("socket") && flags.Changed("node") {
			return usage(cmd, errors.New("--socket and --node each name an agent: give one of them"))
		}
		return nil
	}
	_ = cmd.MarkFlagFilename("socket")
	_ = cmd.RegisterFlagCompletionFunc("node", completeNode(&t.document))
}

// client is the client of the agent that is to be asked.
func (t *target) client() (*api.Client, error) {
	if t.node == "" {
		return api.NewClient(t.socket), nil
	}
	f, err := fabric.Load(t.document)
	if err != nil {
		return nil, err
	}
	n, err := f.Find(t.node)
	if err != nil {
		return nil, err
	}
	files, err := t.files("")
	if err != nil {
		return nil, err
	}
	if files.Absent() {
		return nil, fmt.Errorf("there are no certificates in %s, and without one %s does not answer: name their directory by --pki", t.pki, n.Name)
	}
	return api.NewRemoteClient(api.Remote{Node: n.Name, Address: n.Loopback, Files: files})
}

// files are the certificate to show over the network. self is the node whose
// agent answers on the socket, empty if none does.
func (t *target) files(self string) (pki.Files, error) {
	name := cmp.Or(t.cert, self)
	if name == "" {
		var err error
		if name, err = os.Hostname(); err != nil {
			return pki.Files{}, errors.Join(errors.New("find the host name, name the certificate by --cert"), err)
		}
	}
	return pki.FilesIn(t.pki, name), nil
}
