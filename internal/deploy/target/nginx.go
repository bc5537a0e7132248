package target

import (
	"github.com/certfarm/certfarm/internal/deploy"
)

// nginx are the options of the kind nginx.
type nginx struct{ options }

// Facts checks the options; see deploy.Options.
func (o nginx) Facts() (identity, group string, err error) { return o.facts("nginx") }

// Nginx is nginx on a node: ssl_certificate and ssl_certificate_key name what
// chain and key name here, or both name pem. A reload keeps the old
// configuration when the new one is refused; it fails when nginx does not run,
// and then it is started.
func Nginx() deploy.Kind {
	return deploy.Define(deploy.Kind{
		Name:  "nginx",
		Doc:   "nginx: files and a reload",
		Fence: "unfenced",
	}, nginx{options{upkeep: upkeep{
		Store:  defaultStore,
		Mode:   keyMode,
		Test:   []string{"nginx", "-t"},
		Reload: []string{"nginx", "-s", "reload"},
		Start:  []string{"nginx"},
	}}}, func(o nginx, s deploy.Setup) (deploy.Deployer, error) { return newEngine(o.options, s), nil })
}
