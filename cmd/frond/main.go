// Command frond makes Linux machines one routed fabric: the agent that runs on
// every node, the tool that asks it, and a lab to try it in.
package main

import (
	"os"

	"frond/internal/cli"
)

func main() {
	os.Exit(cli.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
