package main

import "github.com/spf13/cobra"

// verbs lists the commands in the order of help.
func (a *app) verbs() []*cobra.Command {
	return []*cobra.Command{
		a.versionCmd(),
	}
}
