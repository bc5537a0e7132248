package api_test

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// described is what the test reads of the OpenAPI description.
type described struct {
	Paths map[string]map[string]struct {
		ID         string `json:"operationId"`
		Permission string `json:"x-permission"`
		Object     string `json:"x-object"`
		Parameters []struct{ Name, In string }
		Responses  map[string]struct{ Headers map[string]any }
	}
}

func description(t *testing.T) (text []byte, d described) {
	t.Helper()
	text, err := api.OpenAPI("test")
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return text, d
}

func TestEveryRouteIsDescribedWithItsPermission(t *testing.T) {
	_, d := description(t)
	words := regexp.MustCompile(`\{(\w+)\}`)
	ids := map[string]bool{}
	for _, r := range api.Routes() {
		if ids[r.ID] || r.Summary == "" || r.Tag == "" {
			t.Errorf("route %s: twice, or without a summary", r.ID)
		}
		ids[r.ID] = true
		op, ok := d.Paths[r.Path][strings.ToLower(r.Method)]
		if !ok || op.ID != r.ID {
			t.Errorf("%s %s is not described as %s", r.Method, r.Path, r.ID)
			continue
		}
		if op.Permission != string(r.Needs) || !slices.Contains(access.Permissions(), r.Needs) {
			t.Errorf("%s needs %q, described %q", r.ID, r.Needs, op.Permission)
		}
		if op.Object != string(r.Object) || !slices.Contains(access.Objects(), r.Object) || r.Object == access.Nothing {
			t.Errorf("%s is about %q, described %q", r.ID, r.Object, op.Object)
		}
		for _, word := range r.Object.Words() {
			if !strings.Contains(r.Path, "{"+word+"}") {
				t.Errorf("%s is about %q, and its path has no {%s}", r.ID, r.Object, word)
			}
		}
		if strings.Contains(r.Path, "{farm}") && len(r.Object.Words()) == 0 {
			t.Errorf("%s is about one farm, and does not say what of it", r.ID)
		}
		for _, m := range words.FindAllStringSubmatch(r.Path, -1) {
			if !slices.ContainsFunc(op.Parameters, func(p struct{ Name, In string }) bool { return p.Name == m[1] && p.In == "path" }) {
				t.Errorf("%s does not read {%s}", r.ID, m[1])
			}
		}
		if r.Method != http.MethodGet && r.Needs == api.View && r.ID != "plan" && r.ID != "plan-replacement" {
			t.Errorf("%s changes something and needs %q only", r.ID, r.Needs)
		}
	}
	for path, ops := range d.Paths {
		for method, op := range ops {
			if !ids[op.ID] {
				t.Errorf("%s %s is described and not in the table", method, path)
			}
		}
	}
}

// TestDescriptionIsCurrent holds the API still: a change of it is seen in review.
func TestDescriptionIsCurrent(t *testing.T) {
	text, _ := description(t)
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, text, "", "  "); err != nil {
		t.Fatal(err)
	}
	pretty.WriteByte('\n')
	const file = "testdata/openapi.json"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, pretty.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(golden, pretty.Bytes()) {
		t.Error("the API changed: look at the difference with go test ./internal/api -update")
	}
}

// TestEveryProblemIsExplained: the kinds of problems that the code names are those that
// are listed, and the docs tell of each where its type leads.
func TestEveryProblemIsExplained(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "problem.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if d, ok := n.(*ast.GenDecl); ok && d.Tok == token.CONST && len(d.Specs) > 1 {
			named += len(d.Specs)
		}
		return true
	})
	if named != len(api.Problems()) {
		t.Errorf("%d kinds have a name, %d are listed", named, len(api.Problems()))
	}
	for _, kind := range api.Problems() {
		if !strings.Contains(string(page), "\n### Problem "+kind+"\n") {
			t.Errorf("the problem %s is not in docs/api.md", kind)
		}
	}
}

// recorder notes which routes are asked for and answers all with {}.
type recorder struct {
	mu    sync.Mutex
	asked map[string]bool
}

func (r *recorder) handler() http.Handler {
	mux := http.NewServeMux()
	for _, route := range api.Routes() {
		mux.HandleFunc(route.Method+" "+route.Path, func(w http.ResponseWriter, _ *http.Request) {
			r.mu.Lock()
			r.asked[route.ID] = true
			r.mu.Unlock()
			if route.ID == "follow-events" {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = w.Write([]byte("event: event\ndata: {\"ID\":\"ev_1\"}\n\n"))
				return
			}
			_, _ = w.Write([]byte("{}"))
		})
	}
	return mux
}

// TestTheClientKnowsEveryRoute calls every method of the client.
func TestTheClientKnowsEveryRoute(t *testing.T) {
	r := &recorder{asked: map[string]bool{}}
	open, err := api.Listen(r.handler(), api.Doors{Socket: shortDir(t) + "/s"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx := t.Context()
	go func() { done <- open.Serve(ctx) }()
	c, err := client.New(client.Config{Socket: open.Addrs()[0].String()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, call := range calls(c, t) {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, route := range api.Routes() {
		if !r.asked[route.ID] && route.ID != "metrics" { // that is for Prometheus
			t.Errorf("the client never asks %s", route.ID)
		}
	}
}

func calls(c *client.Client, t *testing.T) map[string]func() error {
	ctx := t.Context()
	all := map[string]func() error{
		"Freeze":        func() error { return c.Freeze(ctx, "f", true) },
		"Doctor":        func() error { _, err := c.Doctor(ctx, "f"); return err },
		"Notifications": func() error { _, err := c.Notifications(ctx, "f"); return err },
		"TestReceivers": func() error { _, err := c.TestReceivers(ctx, "f", "r"); return err },
		"Renew":         func() error { return c.Renew(ctx, "f", "s") },
		"Forecast": func() error {
			_, err := c.Forecast(ctx, "f", controller.ForecastAsk{Days: 30, AddNames: 5, Under: "example.com", Pause: time.Hour})
			return err
		},
		"Preflight": func() error { _, err := c.Preflight(ctx, "f", "s", true); return err },
		"Snippet": func() error {
			_, err := c.Snippet(ctx, "f", "s", controller.SnippetAsk{Server: "nginx", Via: "gateway"})
			return err
		},
		"SnippetDNS": func() error { _, err := c.SnippetDNS(ctx, "f", "s"); return err },
		"RollOver":   func() error { _, err := c.RollOver(ctx, "f", "i"); return err },
		"Adopt":      func() error { _, err := c.Adopt(ctx, "f", "n", controller.AdoptAsk{Server: "nginx"}); return err },
		"Sudoers":    func() error { _, err := c.Sudoers(ctx, "f", "n"); return err },
		"NodePolicy": func() error { _, err := c.NodePolicy(ctx, "f", "n"); return err },
		"Receiver":   func() error { _, err := c.NodeReceiver(ctx, "f", "n"); return err },
		"Revoke":     func() error { _, err := c.Revoke(ctx, "f", "s", controller.RevokeAsk{}); return err },
		"Compromise": func() error {
			_, err := c.Compromise(ctx, "f", "s", controller.CompromiseAsk{})
			return err
		},
		"Replacements":      func() error { _, err := c.Replacements(ctx, "f"); return err },
		"CompromiseAccount": func() error { _, err := c.CompromiseAccount(ctx, "f", "i", controller.CompromiseAsk{}); return err },
		"CompromiseNode":    func() error { _, err := c.CompromiseNode(ctx, "f", "n", controller.NodeCompromiseAsk{}); return err },
		"PlanReplace":       func() error { _, err := c.PlanReplace(ctx, "f", controller.ReplaceAsk{}); return err },
		"Replace":           func() error { _, err := c.Replace(ctx, "f", controller.ReplaceAsk{}); return err },
		"Replacement":       func() error { _, err := c.Replacement(ctx, "f", "rep_1"); return err },
		"PauseReplacement":  func() error { return c.PauseReplacement(ctx, "f", "rep_1") },
		"ResumeReplacement": func() error { return c.ResumeReplacement(ctx, "f", "rep_1") },
		"CancelReplacement": func() error { return c.CancelReplacement(ctx, "f", "rep_1") },
		"Undo":              func() error { return c.Undo(ctx, "f", "s", "v") },
		"TestTarget":        func() error { _, err := c.TestTarget(ctx, "f", "s/files@n", true); return err },
		"RestoreTarget":     func() error { return c.RestoreTarget(ctx, "f", "s/files@n") },
		"Retire":            func() error { return c.Retire(ctx, "f", "s/files@n") },
		"Hold":              func() error { return c.Hold(ctx, "f", "n", true) },
		"BanAgent":          func() error { return c.BanAgent(ctx, "f", "n", true) },
		"AgentsCA":          func() error { _, err := c.AgentsCA(ctx); return err },
		"RollOverAgentsCA": func() error {
			_, err := c.RollOverAgentsCA(ctx, true)
			return err
		},
		"NewAgentToken": func() error {
			_, err := c.NewAgentToken(ctx, "f", controller.AgentTokenAsk{Node: "n"})
			return err
		},
		"SetSecret":    func() error { return c.SetSecret(ctx, "f", "x", farm.NewSecret([]byte("y"))) },
		"RemoveSecret": func() error { return c.RemoveSecret(ctx, "f", "x") },
		"About":        func() error { _, err := c.About(ctx); return err },
		"Rekey":        func() error { _, err := c.Rekey(ctx); return err },
		"Farms":        func() error { _, err := c.Farms(ctx); return err },
		"FarmFile":     func() error { _, err := c.FarmFile(ctx, "f"); return err },
		"Plan":         func() error { _, err := c.Plan(ctx, "f", nil, ""); return err },
		"Apply":        func() error { _, err := c.Apply(ctx, "f", nil, "", 0); return err },
		"Sites":        func() error { _, err := c.Sites(ctx, "f"); return err },
		"Describe":     func() error { _, err := c.Describe(ctx, "f", "s"); return err },
		"Verify":       func() error { _, err := c.Verify(ctx, "f", "s"); return err },
		"Import":       func() error { _, err := c.Import(ctx, "f", "s", nil, farm.Secret{}); return err },
		"Progress":     func() error { _, err := c.Progress(ctx, "f", "s"); return err },
		"Targets":      func() error { _, err := c.Targets(ctx, "f", ""); return err },
		"Target":       func() error { _, err := c.Target(ctx, "f", "s/files@n"); return err },
		"Audit":        func() error { _, err := c.Audit(ctx, "f", "s/files@n"); return err },
		"Nodes":        func() error { _, err := c.Nodes(ctx, "f"); return err },
		"NodeStatus":   func() error { _, err := c.NodeStatus(ctx, "f", "n"); return err },
		"Secrets":      func() error { _, err := c.Secrets(ctx, "f"); return err },
		"Rollout":      func() error { _, err := c.Rollout(ctx, "f", "r"); return err },
		"Rollouts":     func() error { _, err := c.Rollouts(ctx, "f", "", 3); return err },
		"Events":       func() error { _, err := c.Events(ctx, "f", store.EventQuery{Newest: true, Limit: 1}); return err },
		"Follow": func() error {
			err := c.Follow(ctx, "f", store.EventQuery{}, func(farm.Event) error { return http.ErrAbortHandler })
			if err == nil || err.Error() != http.ErrAbortHandler.Error() {
				return err
			}
			return nil
		},
	}
	all["Export"] = func() error { _, err := c.Export(ctx, "f", "s", client.ExportAsk{Format: api.FormatPEM}); return err }
	all["Pull"] = func() error { _, _, err := c.Pull(ctx, "f", "www.example"); return err }
	all["Tokens"] = func() error { _, err := c.Tokens(ctx); return err }
	all["CreateToken"] = func() error { _, err := c.CreateToken(ctx, api.TokenAsk{Name: "x"}); return err }
	all["RevokeToken"] = func() error { return c.RevokeToken(ctx, "x") }
	all["Sessions"] = func() error { _, err := c.Sessions(ctx); return err }
	all["EndSession"] = func() error { return c.EndSession(ctx, "x") }
	all["Whoami"] = func() error { _, err := c.Whoami(ctx); return err }
	all["AuditLines"] = func() error { _, err := c.AuditLines(ctx, 0, 10); return err }
	all["VerifyAudit"] = func() error { _, err := c.VerifyAudit(ctx, nil); return err }
	for _, word := range []string{controller.Pause, controller.Resume, controller.Abort, controller.Approve} {
		all[word] = func() error { _, err := c.Tell(ctx, "f", "r", word, ""); return err }
	}
	return all
}
