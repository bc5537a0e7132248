package lab

import (
	"encoding/pem"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/farm"
)

// vocabulary takes any options of the kind nginx.
func vocabulary() config.Vocabulary {
	return config.Vocabulary{
		Kinds: map[string]config.Kind{"nginx": {Check: func(options []byte, _ []string) (string, string, []byte, error) {
			return "file of webd", "webd", options, nil
		}}},
		InlineSecrets: true,
	}
}

func parsed(t *testing.T, m *Machines, f FarmFile) farm.Farm {
	t.Helper()
	file, err := m.WriteFarm(f)
	must(t, err)
	text, err := os.ReadFile(file)
	must(t, err)
	p, err := config.Parse(text, "farm.yaml", vocabulary())
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return p.Farm
}

func labFile(t *testing.T) FarmFile {
	t.Helper()
	der, _, err := selfSigned("lab root", true)
	must(t, err)
	return FarmFile{
		Directory: "https://127.0.0.1:14000/dir", Profile: "default",
		Roots: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
	}
}

func TestFarmYAMLSaysWhatTheMachinesAre(t *testing.T) {
	m := newMachines(t, Layout{})
	in := labFile(t)
	f := parsed(t, m, in)
	if len(f.Nodes) != 3 || len(f.Sites) != 1 || len(f.Sites[0].Targets) != 3 {
		t.Fatalf("%+v", f)
	}
	if ca := f.Issuers[0]; ca.Directory != in.Directory || ca.Profile != in.Profile || ca.Roots != in.Roots {
		t.Errorf("issuer %+v", ca)
	}
	site := f.Sites[0]
	for _, target := range site.Targets {
		n, err := m.Node(target.Node)
		must(t, err)
		if len(target.Endpoints) != 1 || target.Endpoints[0].Address != n.HTTPSAddr() || target.Endpoints[0].SNI != "shop.test" {
			t.Errorf("%s: endpoints %+v", target.Name, target.Endpoints)
		}
		for _, want := range []string{DefaultPEM, `"/store"`, `["webd","reload"]`, `["webd","start"]`, `["webd","-t"]`} {
			if !strings.Contains(string(target.Options), want) {
				t.Errorf("%s: options %s, want %s", target.Name, target.Options, want)
			}
		}
	}
	for _, node := range f.Nodes {
		n, err := m.Node(node.Name)
		must(t, err)
		if node.SSH.Key.File != m.KeyFile || node.SSH.User != LoginUser || node.SSH.HostKeys[0] != n.HostKey() ||
			n.SSHAddr() != net.JoinHostPort(node.Address, strconv.Itoa(node.SSH.Port)) {
			t.Errorf("%s: %+v", node.Name, node.SSH)
		}
	}
	if len(site.Balancers) != 1 || site.Balancers[0].Address != m.Balancer.HTTPSAddr() {
		t.Errorf("balancers %+v", site.Balancers)
	}
	p := site.Policy
	if p.Canary.Of(3) != 1 || p.Soak != time.Second || p.Deadline != 4*time.Second || p.MaxParallel != 2 ||
		p.FailureBudget.Of(3) != 0 || p.AbsentMax.Of(3) != 1 || p.Drift != farm.Heal {
		t.Errorf("policy %+v", p)
	}
}

func TestFarmYAMLOfABench(t *testing.T) {
	m := newMachines(t, Layout{Nodes: 12, Pairs: []Pair{{Chain: "/etc/tls/chain.pem", Key: "/etc/tls/key.pem"}}})
	in := labFile(t)
	in.KeyTypes = []string{"ec256", "rsa2048"}
	in.Policy = farm.Policy{MaxParallel: 12, Deadline: time.Minute, HealthyDeadline: time.Minute, Drift: farm.Report}
	site := parsed(t, m, in).Sites[0]
	if p := site.Policy; p.Canary.Of(12) != 0 || p.MaxParallel != 12 || p.Soak != 0 || p.AbsentMax.Of(12) != 0 || p.Drift != farm.Report {
		t.Errorf("policy %+v", p)
	}
	if len(site.KeyTypes) != 2 || !strings.Contains(string(site.Targets[0].Options), `"chain":"/etc/tls/chain.pem"`) {
		t.Errorf("site %+v", site)
	}
}
