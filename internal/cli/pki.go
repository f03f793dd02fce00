package cli

import (
	"crypto/x509"
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
		Short: "Make the certificates by which nodes and operators know each other",
		Long: "Make the certificates by which nodes and operators know each other, in the store and\n" +
			"where agents are asked over the network.\n" +
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
	var operator bool
	cmd := &cobra.Command{
		Use:   "issue NODE | --operator NAME",
		Short: "Make or renew the certificate of a node, or of an operator",
		Long: "Make or renew a node's certificate, where the CA's key is. An agent takes a new\n" +
			"one up without a restart.\n" +
			"With --operator it is that of a person or a program, who may then change things\n" +
			"on all nodes over the network, and read and write the store.",
		Example:           "  frond pki issue leaf1\n  frond pki issue --operator alice",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeNode(&document),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := fabric.Load(document)
			if err != nil {
				return err
			}
			issue := p.issueNode
			if operator {
				issue = p.issueOperator
			}
			c, err := issue(f, dir, args[0])
			if err != nil {
				return err
			}
			files := pki.FilesIn(dir, args[0])
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid until %s; %s needs it with %s and %s\n",
				files.Cert, c.NotAfter.Format(dayForm), args[0], filepath.Base(files.Key), filepath.Base(files.CA))
			return err
		},
	}
	pkiFlags(cmd, &document, &dir)
	cmd.Flags().BoolVar(&operator, "operator", false, "NAME is no node's but somebody's who may change things over the network")
	return cmd
}

func (p program) issueNode(f *fabric.Fabric, dir, name string) (*x509.Certificate, error) {
	n, err := f.Find(name)
	if err != nil {
		return nil, err
	}
	return pki.Issue(dir, pki.Node{Name: n.Name, Addresses: []netip.Addr{n.Loopback, n.Loopback6}}, p.now())
}

func (p program) issueOperator(f *fabric.Fabric, dir, name string) (*x509.Certificate, error) {
	if _, taken := f.Node(name); taken {
		return nil, usageError{fmt.Errorf("%s is a node: name the operator otherwise, the files of the two would be the same", name)}
	}
	return pki.IssueOperator(dir, name, p.now())
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
			if pki.IsOperator(c.Certificate) {
				row[1].text += ", operator"
			}
			row[3].text = age(c.NotAfter.Sub(v.now))
		}
		if c.Err != nil {
			row[4] = cell{c.Err.Error(), red}
		}
		t.add(row...)
	}
	return t.render(v)
}
