package api_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/store"
)

// A response is what came back of a request.
type response struct {
	status int
	head   http.Header
	body   string
}

func (a response) kind(t *testing.T) string {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return p.Kind()
}

// ask asks over TCP with headers, in pairs.
func (d door) ask(t *testing.T, method, path, body string, head ...string) response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, d.config.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+everything)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(head); i += 2 {
		req.Header.Set(head[i], head[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{res.StatusCode, res.Header, string(text)}
}

const everything = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"

// TestIdempotencyKey: what was done is done once, whoever is asked again.
func TestIdempotencyKey(t *testing.T) {
	d := open(t, true, "everything "+everything+"\n")
	text, err := json.Marshal(api.ApplyAsk{PlanAsk: api.PlanAsk{Text: farmYAML, File: "farm.yaml"}})
	if err != nil {
		t.Fatal(err)
	}
	apply := func(key string) response {
		return d.ask(t, "POST", "/v1/farms/shop/apply", string(text), api.KeyHeader, key)
	}
	first := apply("k1")
	if again := apply("k1"); first.status != http.StatusOK || again.status != first.status || again.body != first.body || again.head.Get(api.ReplayedHeader) != "true" {
		t.Errorf("%d %s\n%d %s", first.status, first.body, again.status, again.body)
	}
	// Without the key the farm has changed meanwhile; another request has no right to the key.
	if other := apply("k2"); other.kind(t) != api.Conflict {
		t.Errorf("%+v", other)
	}
	if other := d.ask(t, "POST", "/v1/farms/shop/sites/www/renew", "", api.KeyHeader, "k1"); other.status != http.StatusUnprocessableEntity || other.kind(t) != api.KeyReused {
		t.Errorf("%+v", other)
	}
	for range 2 { // an answer without words
		if renewed := d.ask(t, "POST", "/v1/farms/shop/sites/www/renew", "", api.KeyHeader, "k3"); renewed.status != http.StatusNoContent {
			t.Errorf("%+v", renewed)
		}
	}
	for _, status := range []int{404, 404} { // what was not done may be asked again
		if none := d.ask(t, "POST", "/v1/farms/shop/sites/none/renew", "", api.KeyHeader, "k4"); none.status != status || none.head.Get(api.ReplayedHeader) != "" {
			t.Errorf("%+v", none)
		}
	}
	made := d.ask(t, "POST", "/v1/tokens", `{"name":"x","grants":[{"role":"viewer"}]}`, api.KeyHeader, "k5")
	again := d.ask(t, "POST", "/v1/tokens", `{"name":"x","grants":[{"role":"viewer"}]}`, api.KeyHeader, "k5")
	if made.status != http.StatusOK || again.status != http.StatusConflict || again.kind(t) != api.ShownOnce {
		t.Errorf("%d, then %+v", made.status, again)
	}
	if long := d.ask(t, "POST", "/v1/rekey", "", api.KeyHeader, strings.Repeat("k", 256)); long.kind(t) != api.Invalid {
		t.Errorf("%+v", long)
	}
}

// TestIdempotencyKeyInFlight: another controller does the same, or died over it.
func TestIdempotencyKeyInFlight(t *testing.T) {
	d := open(t, true, "everything "+everything+"\n")
	local := d.client(t, client.Config{Socket: d.config.Socket, Actor: "alice"})
	if _, err := local.Apply(t.Context(), "shop", []byte(farmYAML), "farm.yaml", 0); err != nil {
		t.Fatal(err)
	}
	k, err := local.CreateToken(t.Context(), api.TokenAsk{Name: "ci", Grants: []store.Grant{{Role: string(access.Operator)}}})
	if err != nil {
		t.Fatal(err)
	}
	renew := func(body string) response {
		t.Helper()
		return d.ask(t, "POST", "/v1/farms/shop/sites/www/renew", body, api.KeyHeader, "k", "Authorization", "Bearer "+k.Token)
	}
	if first := renew(""); first.status != http.StatusNoContent {
		t.Fatalf("%+v", first)
	}
	rewind := func(ago time.Duration) {
		t.Helper()
		err := d.store.Update(t.Context(), func(tx *store.Tx) error {
			a, err := tx.Answered(t.Context(), "token "+k.ID, "8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a")
			a.Status, a.Answer, a.At = 0, "", tx.Now().Add(-ago)
			if err != nil {
				return err
			}
			return tx.PutAnswered(t.Context(), a)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	rewind(time.Minute)
	if a := renew(""); a.status != http.StatusConflict || a.kind(t) != api.InFlight {
		t.Errorf("%+v", a)
	}
	rewind(time.Hour)
	if a := renew(""); a.status != http.StatusNoContent || a.head.Get(api.ReplayedHeader) != "" {
		t.Errorf("%+v", a)
	}
	rewind(25 * time.Hour)
	if a := renew(" "); a.status != http.StatusNoContent {
		t.Errorf("after a day: %+v", a)
	}
}

// TestIfMatch: two editors cannot overwrite each other.
func TestIfMatch(t *testing.T) {
	d := open(t, true, "everything "+everything+"\n")
	ask := func(text, match string) response {
		t.Helper()
		b, err := json.Marshal(api.ApplyAsk{PlanAsk: api.PlanAsk{Text: text, File: "farm.yaml"}})
		if err != nil {
			t.Fatal(err)
		}
		return d.ask(t, "POST", "/v1/farms/shop/apply", string(b), "If-Match", match)
	}
	if a := ask(farmYAML, `"1"`); a.status != http.StatusPreconditionFailed && a.status != http.StatusConflict && a.status != http.StatusNotFound {
		t.Errorf("a farm that is not there: %+v", a)
	}
	if a := d.ask(t, "POST", "/v1/farms/shop/apply", `{"file":"f","text":`+quoted(t, farmYAML)+`}`); a.status != http.StatusOK || a.head.Get("ETag") != `"1"` {
		t.Fatalf("%+v", a)
	}
	mine := d.ask(t, "GET", "/v1/farms/shop", "").head.Get("ETag")
	if same := d.ask(t, "GET", "/v1/farms/shop", "", "If-None-Match", mine); same.status != http.StatusNotModified || same.body != "" {
		t.Errorf("%+v", same)
	}
	theirs := strings.Replace(farmYAML, "www.example.com", "www.example.net", 1)
	if a := ask(theirs, mine); a.status != http.StatusOK || a.head.Get("ETag") != `"2"` {
		t.Fatalf("%+v", a)
	}
	late := ask(strings.Replace(farmYAML, "www.pem", "other.pem", 1), mine)
	var p api.Problem
	if err := json.Unmarshal([]byte(late.body), &p); err != nil || late.status != http.StatusPreconditionFailed || p.Kind() != api.Precondition {
		t.Fatalf("%v: %+v", err, late)
	}
	if p.Conflict == nil || p.Conflict.Revision != 2 || p.Conflict.By != "everything" || len(p.Conflict.Changes) == 0 || p.Conflict.Changes[0].Name != "www" {
		t.Errorf("%+v", p.Conflict)
	}
	if a := ask(farmYAML, "W/nonsense"); a.status != http.StatusPreconditionFailed {
		t.Errorf("%+v", a)
	}
	d.ask(t, "PUT", "/v1/farms/shop/freeze", `{"on":true}`)
	if frozen := d.ask(t, "GET", "/v1/farms/shop", "").head.Get("ETag"); frozen != `"2-frozen"` || ask(farmYAML, frozen).status != http.StatusOK {
		t.Errorf("frozen: %s", frozen)
	}
}

func quoted(t *testing.T, text string) string {
	t.Helper()
	b, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// timed notes the deadlines that are set on its connection.
type timed struct {
	*httptest.ResponseRecorder
	last time.Time
	set  bool
}

func (w *timed) SetReadDeadline(t time.Time) error {
	w.last, w.set = t, true
	return nil
}

// What was read is answered however long that takes: net/http takes a deadline that
// passes meanwhile for a caller that went away.
func TestWhatWasReadHasNoDeadline(t *testing.T) {
	d := open(t, false, "")
	h := api.New(api.Config{Controller: controller.New(controller.Config{Store: d.store, Keys: d.keys})})
	for path, body := range map[string]string{"/v1/farms/shop/apply": `{"text": ""}`, "/v1/farms/shop/sites/www/renew": ""} {
		q := httptest.NewRequestWithContext(access.WithCaller(t.Context(), access.Local("alice")), http.MethodPost, path, strings.NewReader(body))
		q.Header.Set("Content-Type", "application/json")
		q.Header.Set(api.KeyHeader, "k")
		w := &timed{ResponseRecorder: httptest.NewRecorder()}
		h.ServeHTTP(w, q)
		if !w.set || !w.last.IsZero() {
			t.Errorf("%s: the deadline is %v (set: %v), answer %d %s", path, w.last, w.set, w.Code, w.Body)
		}
	}
}
