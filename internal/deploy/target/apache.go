package target

import (
	"github.com/certfarm/certfarm/internal/deploy"
)

// apache are the options of the kind apache.
type apache struct{ options }

// Facts checks the options; see deploy.Options.
func (o apache) Facts() (identity, group string, err error) { return o.facts("apache") }

// Apache is Apache httpd 2.4.8 or newer on a node: SSLCertificateFile and
// SSLCertificateKeyFile name what chain and key name here, or
// SSLCertificateFile alone names pem. Its config test does not load keys, and
// with a wrong one the whole server ends after a graceful restart that reported
// success: the engine checks the pair on the node itself before it switches. A
// graceful restart of a dead server starts it.
func Apache() deploy.Kind {
	return deploy.Define(deploy.Kind{
		Name:  "apache",
		Doc:   "Apache httpd: files and a graceful restart",
		Fence: "unfenced",
	}, apache{options{upkeep: upkeep{
		Store:  defaultStore,
		Mode:   keyMode,
		Test:   []string{"apache2ctl", "-t"},
		Reload: []string{"apache2ctl", "-k", "graceful"},
		Start:  []string{"apache2ctl", "-k", "start"},
	}}}, func(o apache, s deploy.Setup) (deploy.Deployer, error) { return newEngine(o.options, s), nil })
}
