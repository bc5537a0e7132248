package target

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
	"github.com/certfarm/certfarm/internal/host/local"
)

const testPassword = "correct-horse"

// store is a kind that holds one leaf in one file.
type store struct {
	kind, ext string
	part      part
	format    format
	options   map[string]any
	test      string
	reload    string
}

var commands = map[string]any{"test": []string{"svc", "test"}, "reload": []string{"svc", "reload"}}

func TestPFX(t *testing.T) {
	sealedContract(t, store{kind: "pfx", ext: ".pfx", part: pkcs12, options: commands, test: "svc test", reload: "svc reload"})
}

func TestJKS(t *testing.T) {
	sealedContract(t, store{kind: "jks", ext: ".jks", part: javaStore, format: format{Alias: "certfarm"}, options: commands, test: "svc test", reload: "svc reload"})
}

func TestTomcat(t *testing.T) {
	m := startManager(t)
	sealedContract(t, store{kind: "tomcat", ext: ".p12", part: pkcs12, options: map[string]any{"manager": m.URL + "/manager"}})
	if m.reloads.Load() == 0 {
		t.Error("the manager was never asked")
	}
}

func TestEnvoy(t *testing.T) {
	sealedContract(t, store{kind: "envoy", ext: ".json", part: sdsSecret, format: format{Secret: "shop"}})
}

// The engine is that of all files, which TestNginx cuts after every call; what is of a key
// store's own are the bytes.
func sealedContract(t *testing.T, s store) {
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		b := s.bench(t, &hosttest.Mem{}, "/")
		b.Stride = 3
		return b
	})
}

func secrets() map[string]farm.Secret {
	return map[string]farm.Secret{password: farm.NewSecret([]byte(testPassword)), managerSecret: farm.NewSecret([]byte(managerPassword))}
}

// bench is a node below root. The second target has another password: a receipt
// serves in its hands all the same.
func (s store) bench(t *testing.T, h hosttest.Linked, root string) deploytest.Bench {
	t.Helper()
	f := &hosttest.Faulty{Linked: h}
	s.format.Password = secrets()[password]
	open := func(name string, more map[string]farm.Secret) deploytest.Target {
		live := path.Join(root, "etc/tls", name+s.ext)
		return deploytest.Target{
			Deployer: s.open(t, f, live, root, more), Keys: []farm.KeyType{farm.EC256}, Live: [][2]string{{live, live}},
		}
	}
	other := secrets()
	other[password] = farm.NewSecret([]byte("another-password"))
	return deploytest.Bench{
		Host: f, Target: open("shop", secrets()), Second: open("blog", other), Test: s.test, Reload: s.reload,
		Plain: func(_ deploytest.T, of deploytest.Target, b farm.Bundle) {
			live := of.Live[0][0]
			must(t, h.Mkdir(t.Context(), path.Dir(live), host.Attr{Mode: 0o755}))
			text, err := s.format.text(s.part, b)
			must(t, err)
			must(t, h.Write(t.Context(), live, text, host.Attr{Mode: 0o600}))
		},
		Open: s.opener(),
	}
}

// opener opens the files of the first target, each once: deriving a key takes long
// on purpose, and the suite looks after every call.
func (s store) opener() func(data []byte) (chain, key []byte, err error) {
	type opened struct {
		chain, key []byte
		err        error
	}
	known := map[string]opened{}
	p := one("/x", s.part)[0]
	return func(data []byte) (chain, key []byte, err error) {
		o, ok := known[string(data)]
		if !ok {
			o.chain, o.key, o.err = s.format.pair(content{p.Files[0].Name: data}, p)
			known[string(data)] = o
		}
		return o.chain, o.key, o.err
	}
}

func (s store) open(t *testing.T, h host.Host, live, root string, more map[string]farm.Secret) deploy.Deployer {
	t.Helper()
	o := map[string]any{"path": live, "store": path.Join(root, "store")}
	maps.Copy(o, s.options)
	text, err := json.Marshal(o)
	must(t, err)
	d, err := All().Open(s.kind, text, deploy.Setup{Host: h, Secrets: more})
	must(t, err)
	return d
}

// What we write, others read: OpenSSL and Java's keytool.
func TestOthersReadKeyStores(t *testing.T) {
	for _, c := range []struct {
		store
		tool []string
	}{
		{store{kind: "pfx", ext: ".p12"}, []string{"openssl", "pkcs12", "-nokeys", "-passin", "pass:" + testPassword, "-in"}},
		{store{kind: "pfx", ext: ".pfx", options: map[string]any{"cipher": "3des-sha1"}}, []string{"openssl", "pkcs12", "-nokeys", "-passin", "pass:" + testPassword, "-in"}},
		{store{kind: "tomcat", ext: ".p12", options: map[string]any{"manager": ""}}, []string{"keytool", "-list", "-rfc", "-storetype", "PKCS12", "-storepass", testPassword, "-keystore"}},
		{store{kind: "jks", ext: ".jks"}, []string{"keytool", "-list", "-rfc", "-storetype", "JKS", "-storepass", testPassword, "-keystore"}},
	} {
		t.Run(c.kind+c.ext, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(c.tool[0]); err != nil {
				t.Skip(c.tool[0] + " is not installed")
			}
			root := filepath.ToSlash(t.TempDir())
			live := root + "/etc/shop" + c.ext
			d := c.open(t, local.New(local.Config{}), live, root, secrets())
			b := deploytest.NewBundle(t, farm.RSA2048)
			activate(t, d, 1, b)
			out, err := exec.Command(c.tool[0], append(c.tool[1:], live)...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			chain, err := encode.Chain(out)
			if err != nil || len(chain) != 2 || farm.Fingerprint(chain[0].Raw) != b.Leaf {
				t.Errorf("%d certificates, %v\n%s", len(chain), err, out)
			}
			if info, err := os.Stat(live); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", info, err)
			}
		})
	}
}

func activate(t *testing.T, d deploy.Deployer, epoch int64, b farm.Bundle) deploy.Receipt {
	t.Helper()
	r, err := d.Stage(t.Context(), deploy.Stage{Names: deploytest.Names, Bundles: []farm.Bundle{b}, Epoch: epoch})
	must(t, err)
	must(t, d.Activate(t.Context(), []deploy.Receipt{r}))
	return r
}

// A key store under another password is broken, and is replaced; what it held is
// no way back, since the server cannot have read it.
func TestAnotherPassword(t *testing.T) {
	s := store{kind: "pfx", ext: ".pfx", part: pkcs12}
	b := s.bench(t, &hosttest.Mem{}, "/")
	b.Plain(t, deploytest.Target{Live: [][2]string{{"/etc/tls/blog.pfx", ""}}}, deploytest.NewBundle(t, farm.EC256))
	d := b.Second.Deployer
	if in, err := d.Inspect(t.Context()); err != nil || !in.Mismatch || len(in.Leaves) > 0 {
		t.Errorf("holds %+v, %v", in, err)
	}
	next := deploytest.NewBundle(t, farm.EC256)
	r := activate(t, d, 1, next)
	if in, err := d.Inspect(t.Context()); err != nil || in.Mismatch || len(in.Leaves) != 1 || in.Leaves[0] != next.Leaf {
		t.Errorf("holds %+v, %v", in, err)
	}
	must(t, d.Restore(t.Context(), []deploy.Receipt{r}))
	if in, err := d.Inspect(t.Context()); err != nil || !in.Placeholder {
		t.Errorf("holds %+v, %v", in, err)
	}
}

// Bytes that were changed on the node between Stage and Activate are seen without
// the password that opens them.
func TestSealedBytesChanged(t *testing.T) {
	m := &hosttest.Mem{}
	b := store{kind: "pfx", ext: ".pfx", part: pkcs12}.bench(t, m, "/")
	old := deploytest.NewBundle(t, farm.EC256)
	activate(t, b.Target.Deployer, 1, old)
	r, err := b.Target.Deployer.Stage(t.Context(), deploy.Stage{Names: deploytest.Names, Bundles: []farm.Bundle{deploytest.NewBundle(t, farm.EC256)}, Epoch: 2})
	must(t, err)
	for name, text := range m.Tree() {
		if strings.Contains(name, "/2-") && strings.HasSuffix(name, string(pkcs12)) {
			must(t, m.Write(t.Context(), name, append([]byte(text), 0), host.Attr{Mode: 0o600}))
		}
	}
	if err := b.Second.Deployer.Activate(t.Context(), []deploy.Receipt{r}); err == nil || !strings.Contains(err.Error(), "other bytes") {
		t.Errorf("got %v", err)
	}
	if in, err := b.Target.Deployer.Inspect(t.Context()); err != nil || len(in.Leaves) != 1 || in.Leaves[0] != old.Leaf {
		t.Errorf("holds %+v, %v", in, err)
	}
}

func TestKeyStoreOptions(t *testing.T) {
	for _, c := range []struct{ kind, options, field string }{
		{"pfx", `{}`, "path"},
		{"pfx", `{"path": "/a.pfx", "cipher": "rc2"}`, "cipher"},
		{"pfx", `{"path": "/a.pfx", "mode": "0644"}`, "mode"},
		{"jks", `{"path": "/a.jks", "alias": ""}`, "alias"},
		{"jks", `{"path": "/a.jks", "alias": "Shop"}`, "alias"},
		{"tomcat", `{"path": "/a.p12", "manager": "ftp://127.0.0.1/manager"}`, "manager"},
		{"tomcat", `{"path": "/a.p12", "manager": "http://10.0.0.1:8080/manager"}`, "manager"},
		{"tomcat", `{"path": "/a.p12", "manager": "http://u:p@127.0.0.1/manager"}`, "manager"},
		{"envoy", `{"path": "/a.yaml"}`, "path"},
		{"envoy", `{"path": "/a.json", "secret_name": "a\nb"}`, "secret_name"},
		{"haproxy", `{"pem": "/a.pem", "socket": "admin.sock"}`, "socket"},
		{"haproxy", `{"chain": "/a.pem", "key": "/b.pem"}`, "pem"},
		{"haproxy", `{"pem": "/a b.pem"}`, "pem"},
		{"haproxy", `{"pem": "/a.pem", "crt_list": "x"}`, "crt_list"},
	} {
		_, err := All()[c.kind].Check([]byte(c.options), password)
		mistake, ok := err.(*deploy.FieldError)
		if !ok || mistake.Field != c.field {
			t.Errorf("%s %s: got %v, want a mistake in %s", c.kind, c.options, err, c.field)
		}
	}
	if _, err := All()["pfx"].Check([]byte(`{"path": "/a.pfx"}`)); err == nil {
		t.Error("a key store without a password passed")
	}
	for _, text := range []string{"", "short", "Straße-Straße", "line-end\n"} {
		_, err := All().Open("jks", []byte(`{"path": "/a.jks"}`), deploy.Setup{Secrets: map[string]farm.Secret{password: farm.NewSecret([]byte(text))}})
		if err == nil {
			t.Errorf("the password %q passed", text)
		}
	}
}
