package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is the module's version, or the commit that was built.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(len(s.Value), 12)]
		}
	}
	return "devel"
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", GroupID: groupOthers, Short: "Print the version",
		Example: "certfarm version\ncertfarm version --json",
		Args:    args(0, 0, "nothing"),
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.object(struct {
					Type    string `json:"type"`
					Version string `json:"version"`
					Go      string `json:"go"`
					OS      string `json:"os"`
					Arch    string `json:"arch"`
				}{"version", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH})
			}
			a.print("certfarm %s (%s, %s/%s)", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}
