package target

import (
	"github.com/certfarm/certfarm/internal/deploy"
)

// files are the options of the kind files.
type files struct{ options }

// Facts checks the options; see deploy.Options.
func (o files) Facts() (identity, group string, err error) { return o.facts("files") }

// Files is any server that reads PEM files, with the commands that it takes to
// make it look: none by default, for servers that watch their files.
func Files() deploy.Kind {
	return deploy.Define(deploy.Kind{
		Name:  "files",
		Doc:   "PEM files, and commands of your own",
		Fence: "unfenced",
	}, files{options{upkeep: commandless()}}, func(o files, s deploy.Setup) (deploy.Deployer, error) { return newEngine(o.options, s), nil })
}
