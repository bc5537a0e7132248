package main

import (
	"github.com/spf13/cobra"
)

func newCompletion(a *app) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", GroupID: groupOthers, Short: "Print a script that completes commands, flags and names",
		Long: `Completion prints a script for a shell. It completes commands and flags, and
the names of sites, nodes, targets and farms where the controller answers.`,
		Example: `source <(certfarm completion bash)
certfarm completion zsh > "${fpath[1]}/_certfarm"
certfarm completion fish > ~/.config/fish/completions/certfarm.fish`,
		Args:      args(1, 1, "a shell"),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, given []string) error {
			root := cmd.Root()
			switch given[0] {
			case "bash":
				return root.GenBashCompletionV2(a.out, true)
			case "zsh":
				return root.GenZshCompletion(a.out)
			case "fish":
				return root.GenFishCompletion(a.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.out)
			}
			return usage("there is bash, zsh, fish and powershell", "no completion for the shell %q", given[0])
		},
	}
}
