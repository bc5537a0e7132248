package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/certfarm/certfarm/internal/outbound"
)

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 4 << 10

// post calls a URL with a body of JSON; prepare may add to the request. Any status of the
// two hundreds is a success.
func post(ctx context.Context, c *http.Client, to string, what any, prepare func(r *http.Request, body []byte)) error {
	body, err := json.Marshal(what)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	if prepare != nil {
		prepare(r, body)
	}
	return call(c, r)
}

// call sends a request, and says why it was not taken.
func call(c *http.Client, r *http.Request) error {
	r.Header.Set("User-Agent", "certfarm")
	answer, err := c.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if answer.StatusCode >= http.StatusOK && answer.StatusCode < http.StatusMultipleChoices {
		return nil // what else it says is not ours
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("it answers %d %s: %s", answer.StatusCode, http.StatusText(answer.StatusCode), outbound.Quote(string(text)))
}
