package door

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/store"
)

// A caller is an agent that is known, and the certificate that it showed.
type caller struct {
	store.Agent
	leaf *x509.Certificate
}

func (d *Door) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+agent.PathJoin, d.join)
	mux.HandleFunc("POST "+agent.PathRenew, d.known(d.renew, controller.TurnedExpired))
	mux.HandleFunc("POST "+agent.PathCalls, d.known(d.calls))
	mux.HandleFunc("POST "+agent.PathCalls+"/{id}", d.known(d.answer))
	mux.HandleFunc("GET "+agent.PathDesired, d.known(d.desired))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, agent.KindWrong, "there is no such route")
	})
	return mux
}

// known lets in only agents that are known; pardons are the reasons against one that
// do not matter at the route.
func (d *Door) known(route func(http.ResponseWriter, *http.Request, caller), pardons ...controller.TurnedKind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			refuse(w, http.StatusUnauthorized, agent.KindUnknown, "no certificate was shown: join first")
			return
		}
		leaf := r.TLS.PeerCertificates[0]
		a, err := d.config.Controller.AgentOf(r.Context(), leaf)
		turned, ok := errors.AsType[*controller.Turned](err)
		if err != nil && (!ok || len(pardons) == 0 || turned.Kind != pardons[0]) {
			d.fail(w, r, err)
			return
		}
		route(w, r, caller{a, leaf})
	}
}

func (d *Door) join(w http.ResponseWriter, r *http.Request) {
	from, _, _ := net.SplitHostPort(r.RemoteAddr)
	if !d.joins.may(from) {
		w.Header().Set("Retry-After", "60")
		refuse(w, http.StatusTooManyRequests, agent.KindBusy, "too many tried to join: try again in a minute")
		return
	}
	var in agent.Join
	if !read(w, r, maxBody, &in) {
		d.joins.failed(from)
		return
	}
	cert, err := d.config.Controller.JoinAgent(r.Context(), controller.JoinAsk{Digest: in.Digest, Node: short(in.Node), CSR: in.CSR, Version: short(in.Version), Learns: in.Learns})
	if err != nil {
		d.joins.failed(from)
		d.config.Log.Warn("an agent may not join", "from", from, "why", err)
		d.fail(w, r, err)
		return
	}
	d.config.Log.Info("an agent has joined", "farm", cert.Farm, "node", cert.Node, "from", from)
	write(w, agent.Joined{Farm: cert.Farm, Node: cert.Node, Chain: cert.Chain, Until: cert.Until, Pins: cert.Pins})
}

func (d *Door) renew(w http.ResponseWriter, r *http.Request, a caller) {
	var in agent.Renew
	if !read(w, r, maxBody, &in) {
		return
	}
	cert, err := d.config.Controller.RenewAgent(r.Context(), a.Agent, in.CSR, in.Learns)
	if err != nil {
		d.fail(w, r, err)
		return
	}
	write(w, agent.Joined{Farm: cert.Farm, Node: cert.Node, Chain: cert.Chain, Until: cert.Until, Pins: cert.Pins})
}

// word is what ids and versions consist of.
var word = regexp.MustCompile(`^[A-Za-z0-9_.+-]{1,100}$`)

func (d *Door) calls(w http.ResponseWriter, r *http.Request, a caller) {
	var in agent.Poll
	if !read(w, r, maxBody, &in) {
		return
	}
	if !word.MatchString(in.Session) || in.Count < 1 {
		refuse(w, http.StatusBadRequest, agent.KindWrong, "a session and a count are missing")
		return
	}
	heard := controller.Heard{Session: in.Session, Count: in.Count, Version: short(in.Version), At: in.At}
	if err := d.config.Controller.HearAgent(r.Context(), a.Agent, heard); err != nil {
		d.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), d.config.Poll)
	defer cancel()
	got, err := d.config.Controller.AgentCalls(ctx, a.Agent, in.Have)
	if err == nil { // it may have been turned away while it waited
		_, err = d.config.Controller.AgentOf(r.Context(), a.leaf)
	}
	if err != nil {
		d.fail(w, r, err)
		return
	}
	write(w, agent.Calls{Calls: got})
}

func (d *Door) answer(w http.ResponseWriter, r *http.Request, a caller) {
	id := r.PathValue("id")
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, remote.MaxAnswer))
	if err != nil {
		tooLong(w, err)
		return
	}
	said, err := remote.OpenAnswer(text)
	if err != nil || said.ID != id || !word.MatchString(id) {
		refuse(w, http.StatusBadRequest, agent.KindWrong, "this is no answer to that call")
		return
	}
	taken, err := d.config.Controller.AgentAnswer(r.Context(), a.Agent, id, text)
	switch {
	case err != nil:
		d.fail(w, r, err)
	case !taken:
		refuse(w, http.StatusGone, agent.KindGone, "nobody waits for that answer")
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (d *Door) desired(w http.ResponseWriter, r *http.Request, a caller) {
	wishes, err := d.config.Controller.AgentWishes(r.Context(), a.Agent)
	if err != nil {
		d.fail(w, r, err)
		return
	}
	out := agent.Desired{Targets: make([]agent.Wish, len(wishes))}
	for i, v := range wishes {
		out.Targets[i] = agent.Wish(v)
	}
	write(w, out)
}

// fail answers an error. What it says beside a refusal stays here: it is about the
// controller.
func (d *Door) fail(w http.ResponseWriter, r *http.Request, err error) {
	turned, ok := errors.AsType[*controller.Turned](err)
	if !ok {
		if r.Context().Err() == nil {
			d.config.Log.Error("an agent was not answered", "route", r.URL.Path, "error", err)
		}
		refuse(w, http.StatusInternalServerError, agent.KindFailed, "something went wrong at the controller: its log says what")
		return
	}
	status := http.StatusUnauthorized
	if turned.Kind == controller.TurnedAway || turned.Kind == controller.TurnedToken {
		status = http.StatusForbidden
	}
	refuse(w, status, string(turned.Kind), turned.Why)
}

func refuse(w http.ResponseWriter, status int, kind, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(agent.Refused{Kind: kind, Why: why}) // the agent is gone
}

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the agent is gone: it asks again
}

// read decodes a body of at most so many bytes; it answers where it cannot.
func read(w http.ResponseWriter, r *http.Request, most int64, into any) bool {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		tooLong(w, err)
		return false
	}
	if err := json.Unmarshal(text, into); err != nil {
		refuse(w, http.StatusBadRequest, agent.KindWrong, "the request is not the JSON that belongs here")
		return false
	}
	return true
}

func tooLong(w http.ResponseWriter, err error) {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		refuse(w, http.StatusRequestEntityTooLarge, agent.KindWrong, "the request is too long")
		return
	}
	refuse(w, http.StatusBadRequest, agent.KindWrong, "the request broke off")
}

// short bounds a word for the journal, and empties one that is none.
func short(s string) string {
	if !word.MatchString(s) {
		return ""
	}
	return s
}
