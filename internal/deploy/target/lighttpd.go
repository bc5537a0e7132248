package target

import (
	"github.com/certfarm/certfarm/internal/deploy"
)

// lighttpd are the options of the kind lighttpd.
type lighttpd struct{ options }

// Facts checks the options; see deploy.Options.
func (o lighttpd) Facts() (identity, group string, err error) { return o.facts("lighttpd") }

// Lighttpd is lighttpd on a node: ssl.pemfile names what pem names here, or
// ssl.pemfile and ssl.privkey what chain and key name. It reads its files at its
// start only; SIGUSR1, which the reload of a systemd unit sends, makes it start
// anew in the same process once its connections have ended, at most
// server.graceful-shutdown-timeout later. A broken pair would end it then: the
// engine checks the pair on the node before it switches.
func Lighttpd() deploy.Kind {
	return deploy.Define(deploy.Kind{
		Name:  "lighttpd",
		Doc:   "lighttpd: files and a graceful restart",
		Fence: "unfenced",
	}, lighttpd{options{upkeep: upkeep{
		Store:  defaultStore,
		Mode:   keyMode,
		Test:   []string{"lighttpd", "-tt", "-f", "/etc/lighttpd/lighttpd.conf"},
		Reload: []string{"systemctl", "reload", "lighttpd"},
		Start:  []string{"systemctl", "start", "lighttpd"},
	}}}, func(o lighttpd, s deploy.Setup) (deploy.Deployer, error) { return newEngine(o.options, s), nil })
}
