package api

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/store"
)

// KeyHeader lets a POST be sent again when its answer was lost: what was done is done
// once, and answered as before.
const KeyHeader = "Idempotency-Key"

// ReplayedHeader stands in an answer that was given before.
const ReplayedHeader = "Idempotency-Replayed"

// The bounds of what is kept of requests with a key.
const (
	keptFor    = 24 * time.Hour
	doneWithin = 2 * writeWithin // then whoever did it is gone, and it may be done anew
	longestKey = 255
	mostKept   = 1 << 20 // bytes of an answer
)

// keyed reports that a request with the header is answered once: those that only look
// may be asked again at any time.
func (r Route) keyed() bool { return r.Method == http.MethodPost && r.Needs != View }

// once does what a request asks for, unless it has a key under which that was done
// before: then it is answered in the same way, by whichever controller.
func (s *server) once(a huma.API, ctx huma.Context, r Route, c access.Caller, do func(huma.Context)) {
	key := ctx.Header(KeyHeader)
	if key == "" || !r.keyed() {
		do(ctx)
		return
	}
	if len(key) > longestKey {
		_ = s.turnDown(a, ctx, r, problem(Invalid, "the Idempotency-Key has more than 255 characters", "send a UUID"))
		return
	}
	_ = ctx.SetReadDeadline(time.Now().Add(bodyWithin)) // where there is none, the server's own counts
	body, err := io.ReadAll(io.LimitReader(ctx.BodyReader(), cmp.Or(r.Body, maxBody)+1))
	if err != nil {
		_ = s.turnDown(a, ctx, r, problem(Invalid, "the request broke off", ""))
		return
	}
	mine := store.Answered{Caller: c.Via + " " + c.Key, Digest: digest(key), Request: mark(key, ctx, body)}
	if int64(len(body)) <= cmp.Or(r.Body, maxBody) { // it is here: what it asks for has no such deadline
		_ = ctx.SetReadDeadline(time.Time{})
	}
	before, err := s.claim(ctx.Context(), mine)
	if err == nil && before.Status != 0 {
		err = replay(ctx, before)
	}
	if err != nil {
		_ = s.turnDown(a, ctx, r, err)
	}
	if err != nil || before.Status != 0 {
		return
	}
	heard := &hearing{humaContext: ctx, sent: io.MultiReader(bytes.NewReader(body), ctx.BodyReader())}
	defer s.answered(ctx.Context(), mine, r, heard)
	do(heard)
}

func digest(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// mark tells requests apart that have the same key. A body may hold a secret that could
// be guessed: without the key, which is not kept, nobody can try.
func mark(key string, ctx huma.Context, body []byte) string {
	u := ctx.URL()
	sum := hmac.New(sha256.New, []byte(key))
	for _, part := range []string{ctx.Method(), u.RequestURI(), ctx.Header("If-Match")} {
		sum.Write([]byte(part + "\x00"))
	}
	sum.Write(body)
	return hex.EncodeToString(sum.Sum(nil))
}

// claim takes a request to be done here, and returns its zero answer; or it returns how
// the same one was answered. What was begun by somebody who is gone is taken over.
func (s *server) claim(ctx context.Context, mine store.Answered) (before store.Answered, err error) {
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.ExpireAnswered(ctx, tx.Now().Add(-keptFor)); err != nil {
			return err
		}
		before, err = tx.Answered(ctx, mine.Caller, mine.Digest)
		gone := before.Status == 0 && tx.Now().Sub(before.At) > doneWithin
		switch {
		case err != nil && !errors.Is(err, store.ErrNotFound):
			return err
		case err == nil && before.Request != mine.Request:
			return problem(KeyReused, "this Idempotency-Key was sent with another request", "make a new key for each request, and send a request again unchanged")
		case err == nil && before.Status == 0 && !gone:
			return problem(InFlight, "the same request is being done since "+before.At.UTC().Format(time.RFC3339), "wait for its end, and send it again")
		case err == nil && !gone:
			return nil
		}
		mine.At = tx.Now()
		return tx.PutAnswered(ctx, mine)
	})
	return before, err
}

// replay answers as before.
func replay(ctx huma.Context, a store.Answered) error {
	if a.Answer == "" && a.Status != http.StatusNoContent {
		return problem(ShownOnce, "this was done at "+a.At.UTC().Format(time.RFC3339)+", and the answer is not kept", "look at what there is now; where a token was lost, revoke it and make another")
	}
	ctx.SetHeader(ReplayedHeader, "true")
	if a.Kind != "" {
		ctx.SetHeader("Content-Type", a.Kind)
	}
	ctx.SetStatus(a.Status)
	_, _ = io.WriteString(ctx.BodyWriter(), a.Answer) // the caller is gone, or there is no body
	return nil
}

// answered keeps how a request was answered. What was refused, or failed, was not done:
// it is forgotten, so that it may be asked again.
func (s *server) answered(ctx context.Context, mine store.Answered, r Route, h *hearing) {
	ctx = context.WithoutCancel(ctx)
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		if h.status < 200 || h.status >= 300 {
			return tx.ForgetAnswered(ctx, mine.Caller, mine.Digest)
		}
		mine.At, mine.Status, mine.Kind = tx.Now(), h.status, h.kind
		if !r.Once && h.said.Len() <= mostKept {
			mine.Answer = h.said.String()
		}
		return tx.PutAnswered(ctx, mine)
	})
	if err != nil {
		s.log.Error("an answer is not kept for those who ask again", "route", r.ID, "error", err)
	}
}

type humaContext = huma.Context // by its own name it would hide its method Context

// hearing hears how a request is answered.
type hearing struct {
	humaContext
	sent   io.Reader
	status int
	kind   string
	said   bytes.Buffer
}

// SetReadDeadline does nothing: what was sent was read. On the connection, net/http
// listens for the caller's going away, and would take the deadline's end for it.
func (h *hearing) SetReadDeadline(time.Time) error { return nil }

// BodyReader is what was sent.
func (h *hearing) BodyReader() io.Reader { return h.sent }

// SetStatus answers with a status.
func (h *hearing) SetStatus(code int) {
	h.status = code
	h.humaContext.SetStatus(code)
}

// SetHeader answers with a header.
func (h *hearing) SetHeader(name, value string) {
	if name == "Content-Type" {
		h.kind = value
	}
	h.humaContext.SetHeader(name, value)
}

// BodyWriter takes the answer's body.
func (h *hearing) BodyWriter() io.Writer { return io.MultiWriter(&h.said, h.humaContext.BodyWriter()) }
