package issuetest

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
)

// A Fault goes in front of the CA; see Options.Wrap.
type Fault func(http.Handler) http.Handler

// Faults puts several faults in front of the CA, the first outermost.
func Faults(all ...Fault) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		for _, fault := range slices.Backward(all) {
			h = fault(h)
		}
		return h
	}
}

// LoseReply lets the first n requests to an endpoint take effect and then cuts
// the connection, so that the client never hears of it. A request that the CA
// refuses (a bad nonce) is answered and not counted.
func LoseReply(e Endpoint, n int) Fault {
	return first(e, n, func(h http.Handler, w http.ResponseWriter, r *http.Request) bool {
		reply := httptest.NewRecorder()
		h.ServeHTTP(reply, r)
		if reply.Code < http.StatusBadRequest {
			panic(http.ErrAbortHandler)
		}
		copyReply(w, reply)
		return false
	})
}

// CutOff cuts the connection of the first n requests to an endpoint before they
// take effect.
func CutOff(e Endpoint, n int) Fault {
	return first(e, n, func(http.Handler, http.ResponseWriter, *http.Request) bool {
		panic(http.ErrAbortHandler)
	})
}

// A Reply is what a fault answers in the CA's place.
type Reply struct {
	Status int
	Header map[string]string
	Body   string // JSON unless the header says otherwise
}

// Answer gives the reply to the first n requests to an endpoint, which do not
// reach the CA.
func Answer(e Endpoint, n int, reply Reply) Fault {
	return first(e, n, func(_ http.Handler, w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "application/problem+json")
		for name, value := range reply.Header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(reply.Status)
		_, _ = w.Write([]byte(reply.Body))
		return true
	})
}

// Change lets a request to an endpoint through and edits the body of what the CA
// answers with success. Edit returns the new body.
func Change(e Endpoint, edit func(body []byte) []byte) Fault {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if EndpointOf(r) != e {
				h.ServeHTTP(w, r)
				return
			}
			reply := httptest.NewRecorder()
			h.ServeHTTP(reply, r)
			if reply.Code < http.StatusBadRequest {
				body := edit(reply.Body.Bytes())
				reply.Body.Reset()
				reply.Body.Write(body)
			}
			copyReply(w, reply)
		})
	}
}

// first does act for the first n requests to an endpoint; it counts those for
// which act reports true or does not return.
func first(e Endpoint, n int, act func(http.Handler, http.ResponseWriter, *http.Request) bool) Fault {
	var mu sync.Mutex
	left := n
	take := func(d int) bool {
		mu.Lock()
		defer mu.Unlock()
		if d < 0 && left <= 0 {
			return false
		}
		left += d
		return true
	}
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if EndpointOf(r) != e || !take(-1) {
				h.ServeHTTP(w, r)
				return
			}
			if !act(h, w, r) {
				take(+1)
			}
		})
	}
}

func copyReply(w http.ResponseWriter, reply *httptest.ResponseRecorder) {
	maps.Copy(w.Header(), reply.Header())
	w.WriteHeader(reply.Code)
	_, _ = w.Write(reply.Body.Bytes())
}
