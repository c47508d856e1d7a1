package main

import "github.com/spf13/cobra"

// verbs lists the commands in the order of help.
func (a *app) verbs() []*cobra.Command {
	return []*cobra.Command{
		a.demoCmd(),
		a.tuneCmd(),
		a.evalCmd(),
		a.attackCmd(),
		a.hardenCmd(),
		a.checkCmd(),
		a.certifyCmd(),
		a.pretrainCmd(),
		a.distillCmd(),
		a.mergeCmd(),
		a.exportCmd(),
		a.quantizeCmd(),
		a.inspectCmd(),
		a.pluginCmd(),
		a.classifyCmd(),
		a.embedCmd(),
		a.fillCmd(),
		a.generateCmd(),
		a.chatCmd(),
		a.serveCmd(),
		a.tokenizeCmd(),
		a.benchCmd(),
		a.costCmd(),
		a.doctorCmd(),
		a.pullCmd(),
		a.modelsCmd(),
		a.versionCmd(),
	}
}
