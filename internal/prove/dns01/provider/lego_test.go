package provider

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lookup"
	"github.com/certfarm/certfarm/internal/prove/dns01"
	"github.com/certfarm/certfarm/internal/prove/dns01/writertest"
)

// TestMain makes the test binary a helper, as certfarm is one: a good one, and
// some that are not.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 {
		os.Exit(m.Run())
	}
	switch os.Args[1] {
	case "dns-helper":
		syscall.Exit(HelperMain(context.Background(), os.Stdout)) // os.Exit would wait a second for more races
	case "helper-that-hangs":
		hold := exec.Command("sleep", "600") // and has a child that holds its output
		hold.Stdout, hold.Stderr = os.Stdout, os.Stderr
		_ = hold.Start()
		select {}
	case "helper-that-crashes":
		in, _ := requests()
		line, _ := bufio.NewReader(in).ReadString('\n')
		panic("the request was " + line)
	case "helper-that-babbles":
		fmt.Println("hello")
		_, _ = io.Copy(io.Discard, os.NewFile(3, ""))
	case "helper-that-floods":
		for range 1000 {
			fmt.Print(strings.Repeat("x", 10<<10))
			fmt.Fprint(os.Stderr, strings.Repeat("y", 10<<10))
		}
	case "helper-that-tells":
		fmt.Printf(`{"error":"environment: %s, arguments: %s"}`+"\n", strings.Join(os.Environ(), " "), os.Args[2:])
		_, _ = io.Copy(io.Discard, os.NewFile(3, ""))
	default:
		os.Exit(m.Run())
	}
}

const (
	zone   = "example.com"
	secret = "S3cr3t+Tok/en=with&marks"
)

// A world is a proxy that all of the helpers' HTTPS goes through, and that is
// every host there is, with one zone of TXT records behind.
type world struct {
	t     *testing.T
	proxy string
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey

	mu      sync.Mutex
	hosts   map[string]http.Handler
	records []record
	next    int
	calls   []string
}

type record struct {
	id          int
	name, value string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, hosts: map[string]http.Handler{}, next: 100}
	var err error
	if w.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "world"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &w.key.PublicKey, w.key)
	if err != nil {
		t.Fatal(err)
	}
	if w.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	server := httptest.NewServer(http.HandlerFunc(w.connect))
	t.Cleanup(server.Close)
	w.proxy = server.URL
	return w
}

// connect is the proxy: it answers for the host itself.
func (w *world) connect(rw http.ResponseWriter, r *http.Request) {
	host, _, _ := net.SplitHostPort(r.Host)
	w.mu.Lock()
	h := w.hosts[host]
	w.mu.Unlock()
	if r.Method != http.MethodConnect || h == nil {
		w.t.Errorf("a helper asks %s %s, which no test expects", r.Method, r.Host)
		http.Error(rw, "no such host", http.StatusBadGateway)
		return
	}
	conn, _, err := rw.(http.Hijacker).Hijack()
	if err != nil {
		w.t.Error(err)
		return
	}
	fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\n")
	one := &once{conn: make(chan net.Conn, 1), done: make(chan struct{})}
	one.conn <- tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{w.certificate(host)}})
	srv := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.calls = append(w.calls, r.Method+" "+host+r.URL.Path)
		h.ServeHTTP(rw, r)
	}), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			close(one.done)
		}
	}}
	_ = srv.Serve(one)
}

func (w *world) certificate(host string) tls.Certificate {
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, leaf, w.ca, &w.key.PublicKey, w.key)
	if err != nil {
		w.t.Error(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: w.key}
}

// once is a listener with one connection.
type once struct {
	conn chan net.Conn
	done chan struct{}
}

func (o *once) Accept() (net.Conn, error) {
	select {
	case c := <-o.conn:
		return c, nil
	case <-o.done:
		return nil, net.ErrClosed
	}
}
func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return &net.TCPAddr{} }

// add, drop and at change and tell the records; the caller is a host's handler.
func (w *world) add(name, value string) int {
	w.next++
	w.records = append(w.records, record{w.next, strings.TrimSuffix(name, "."), value})
	return w.next
}

func (w *world) drop(match func(record) bool) bool {
	before := len(w.records)
	w.records = slices.DeleteFunc(w.records, match)
	return len(w.records) < before
}

func (w *world) at(name string) (values []string) {
	for _, r := range w.records {
		if r.name == strings.TrimSuffix(name, ".") {
			values = append(values, r.value)
		}
	}
	return values
}

func (w *world) set(name string, values []string) {
	w.drop(func(r record) bool { return r.name == strings.TrimSuffix(name, ".") })
	for _, v := range values {
		w.add(name, v)
	}
}

func (w *world) values(name string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at(name)
}

// find is a provider of a list of its own, as after a restart.
func find(t *testing.T, name string) dns01.Provider {
	t.Helper()
	for _, p := range All() {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("there is no provider %s", name)
	return dns01.Provider{}
}

// An account is what a test gives a provider.
type account struct {
	provider string
	options  string
	secrets  map[string]string
	helper   []string
	proxy    string
}

func (a account) writer(t *testing.T, p dns01.Provider) dns01.Writer {
	t.Helper()
	hidden, names := map[string]farm.Secret{}, []string{}
	for name, v := range a.secrets {
		hidden[name] = farm.NewSecret([]byte(v))
		names = append(names, name)
	}
	options, err := p.Check([]byte(a.options), names)
	if err != nil {
		t.Fatal(err)
	}
	if a.helper == nil {
		a.helper = []string{os.Args[0], "dns-helper"}
	}
	w, err := p.New(t.Context(), dns01.Setup{Options: options, Secrets: hidden, Proxy: a.proxy, Helper: a.helper,
		Lookup: lookup.Client{Resolvers: map[string][]string{".": {"127.0.0.1:1"}}, Timeout: 50 * time.Millisecond, Tries: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// answering gives a record of any value the key authorization that an API of
// lego's wants: the value is that of the key authorization instead.
type answering struct{ dns01.Writer }

func (a answering) Put(ctx context.Context, r dns01.Record) error {
	return a.Writer.Put(ctx, digested(r))
}

func (a answering) Remove(ctx context.Context, r dns01.Record) error {
	return a.Writer.Remove(ctx, digested(r))
}

func digested(r dns01.Record) dns01.Record {
	sum := sha256.Sum256([]byte(r.Value))
	r.KeyAuth = base64.RawURLEncoding.EncodeToString(sum[:]) + ".thumbprint"
	sum = sha256.Sum256([]byte(r.KeyAuth))
	r.Value = base64.RawURLEncoding.EncodeToString(sum[:])
	return r
}

// suite runs the contract; original are the values that it may put.
func suite(t *testing.T, a account, values func(name string) []string) {
	var mu sync.Mutex
	seen := map[string]string{}
	p := find(t, a.provider)
	writertest.Run(t, writertest.Suite{
		Zone:    zone,
		Forgets: p.Forgets,
		New: func(t *testing.T) dns01.Writer {
			return noting{answering{a.writer(t, p)}, func(r dns01.Record) {
				mu.Lock()
				defer mu.Unlock()
				seen[digested(r).Value] = r.Value
			}}
		},
		Values: func(_ *testing.T, name string) (all []string) {
			mu.Lock()
			defer mu.Unlock()
			for _, v := range values(name) {
				all = append(all, seen[v])
			}
			return all
		},
	})
}

// noting notes what is put.
type noting struct {
	dns01.Writer
	note func(dns01.Record)
}

func (n noting) Put(ctx context.Context, r dns01.Record) error {
	n.note(r)
	return n.Writer.Put(ctx, r)
}
