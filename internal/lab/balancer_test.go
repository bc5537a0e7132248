package lab

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

func get(t *testing.T, url, host string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(soon(t), http.MethodGet, url, nil)
	must(t, err)
	r.Host = host
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	a, err := client.Do(r)
	must(t, err)
	defer func() { _ = a.Body.Close() }()
	body, err := io.ReadAll(a.Body)
	must(t, err)
	return a.StatusCode, string(body)
}

func newMachines(t *testing.T, l Layout) *Machines {
	t.Helper()
	l.Dir = t.TempDir()
	m, err := StartMachines(l)
	must(t, err)
	t.Cleanup(func() { must(t, m.Close()) })
	return m
}

func TestBalancerRotates(t *testing.T) {
	m := newMachines(t, Layout{Placeholder: true})
	var order []string
	for range 6 {
		_, body := get(t, "http://"+m.Balancer.HTTPAddr()+"/", "shop.test")
		order = append(order, body)
		_, err := Serving(soon(t), m.Balancer.HTTPSAddr(), "shop.test")
		must(t, err)
	}
	for i := range 3 {
		if order[i] != order[i+3] || order[i] == order[(i+1)%3] {
			t.Fatalf("the order does not rotate: %q", order)
		}
	}
	for _, counts := range []map[string]int{m.Balancer.Requests(), m.Balancer.Connections()} {
		if counts["web1"] != 2 || counts["web2"] != 2 || counts["web3"] != 2 {
			t.Errorf("not even: %v", counts)
		}
	}
}

func TestBalancerSkipsDeadNodes(t *testing.T) {
	m := newMachines(t, Layout{Placeholder: true})
	must(t, m.Nodes[1].Set(Fault{Kind: Down}))
	for range 6 {
		if status, body := get(t, "http://"+m.Balancer.HTTPAddr()+"/", "shop.test"); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
		_, err := Serving(soon(t), m.Balancer.HTTPSAddr(), "shop.test")
		must(t, err)
	}
	for _, counts := range []map[string]int{m.Balancer.Requests(), m.Balancer.Connections()} {
		if counts["web2"] != 0 || counts["web1"]+counts["web3"] != 6 {
			t.Errorf("counts %v", counts)
		}
	}
	for _, n := range m.Nodes {
		must(t, n.Set(Fault{Kind: Down}))
	}
	if status, _ := get(t, "http://"+m.Balancer.HTTPAddr()+"/", "shop.test"); status != http.StatusBadGateway {
		t.Errorf("without nodes: %d", status)
	}
	if _, err := Serving(soon(t), m.Balancer.HTTPSAddr(), "shop.test"); err == nil {
		t.Error("a handshake without nodes")
	}
}

func TestBalancerRoutesChallenges(t *testing.T) {
	m := newMachines(t, Layout{Nodes: 2})
	controller := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "for "+r.Host+r.URL.Path)
	}))
	defer controller.Close()
	url := "http://" + m.Balancer.HTTPAddr() + challengePath + "token"

	if status, _ := get(t, url, "shop.test"); status != http.StatusNotFound {
		t.Errorf("without a route a node should be asked, which knows no token: %d", status)
	}
	m.Balancer.RouteChallenges(controller.Listener.Addr().String())
	for range 3 {
		if _, body := get(t, url, "shop.test"); body != "for shop.test"+challengePath+"token" {
			t.Errorf("answer %q", body)
		}
	}
	if _, body := get(t, "http://"+m.Balancer.HTTPAddr()+"/", "shop.test"); body != "served by web2\n" {
		t.Errorf("all else goes to the nodes: %q", body)
	}
	m.Balancer.RouteChallenges("")
	if status, _ := get(t, url, "shop.test"); status != http.StatusNotFound {
		t.Errorf("the route is still there: %d", status)
	}
}
