package cli

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/spf13/cobra"

	"frond/internal/fabric"
	"frond/internal/pki"
)

const (
	defaultDocument = "/etc/frond/fabric.yaml"
	defaultPKI      = "/etc/frond/pki"
)

func (p program) pkiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pki",
		Short: "Make the certificates by which the store's members and clients know each other",
		Long: "Make the certificates by which the store's members and clients know each other.\n" +
			"The CA is made once, on one machine, which keeps its key; each node gets ca.crt,\n" +
			"NODE.crt and NODE.key, by any safe way, into its own directory.",
		GroupID: groupTry,
	}
	cmd.AddCommand(p.pkiInitCommand(), p.pkiIssueCommand(), p.pkiShowCommand())
	return cmd
}

// pkiFlags are where the document and the certificates are.
func pkiFlags(cmd *cobra.Command, document, dir *string) {
	cmd.Flags().StringVar(document, "config", defaultDocument, "the fabric's document")
	cmd.Flags().StringVar(dir, "pki", defaultPKI, "directory of certificates")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	_ = cmd.MarkFlagDirname("pki")
}

func (p program) pkiInitCommand() *cobra.Command {
	var document, dir string
	cmd := &cobra.Command{
		Use:               "init",
		Short:             "Make the fabric's certificate authority",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := fabric.Load(document)
			if err != nil {
				return err
			}
			c, err := pki.Init(dir, f.Name, p.now())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "the CA of %s is in %s, valid until %s; keep ca.key safe\n",
				f.Name, dir, c.NotAfter.Format(dayForm))
			return err
		},
	}
	pkiFlags(cmd, &document, &dir)
	return cmd
}

const dayForm = "2006-01-02"

func (p program) pkiIssueCommand() *cobra.Command {
	var document, dir string
	cmd := &cobra.Command{
		Use:   "issue NODE",
		Short: "Make or renew a node's certificate",
		Long: "Make or renew a node's certificate, where the CA's key is. An agent takes a new\n" +
			"one up without a restart.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeNode(&document),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := fabric.Load(document)
			if err != nil {
				return err
			}
			n, err := f.Find(args[0])
			if err != nil {
				return err
			}
			c, err := pki.Issue(dir, pki.Node{Name: n.Name, Addresses: []netip.Addr{n.Loopback, n.Loopback6}}, p.now())
			if err != nil {
				return err
			}
			files := pki.FilesIn(dir, n.Name)
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid until %s; %s needs it with %s and %s\n",
				files.Cert, c.NotAfter.Format(dayForm), n.Name, filepath.Base(files.Key), filepath.Base(files.CA))
			return err
		},
	}
	pkiFlags(cmd, &document, &dir)
	return cmd
}

func (p program) pkiShowCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:               "show",
		Short:             "List the certificates and how long they are valid",
		Long:              "List the certificates and how long they are valid. One that is not makes the exit\ncode 1.",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := pki.List(dir, p.now())
			if err != nil {
				return err
			}
			if len(list) == 0 {
				return fmt.Errorf("there are no certificates in %s: \"frond pki init\" makes the CA", dir)
			}
			if _, err := fmt.Fprint(cmd.OutOrStdout(), renderCertificates(list, p.view(cmd.OutOrStdout()))); err != nil {
				return err
			}
			for _, c := range list {
				if c.Err != nil {
					return errUnhealthy
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "pki", defaultPKI, "directory of certificates")
	_ = cmd.MarkFlagDirname("pki")
	return cmd
}

func renderCertificates(list []pki.Certificate, v view) string {
	t := table{columns: []column{{name: "FILE"}, {name: "OF"}, {name: "VALID UNTIL"}, {name: "LEFT"}, {name: "PROBLEM"}}}
	for _, c := range list {
		row := []cell{{filepath.Base(c.File), bold}, {}, {}, {}, {}}
		if c.Certificate != nil {
			row[1].text, row[2].text = c.Subject.CommonName, c.NotAfter.Format(dayForm)
			row[3].text = age(c.NotAfter.Sub(v.now))
		}
		if c.Err != nil {
			row[4] = cell{c.Err.Error(), red}
		}
		t.add(row...)
	}
	return t.render(v)
}
