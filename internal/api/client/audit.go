package client

import (
	"context"
	"net/url"
	"strconv"

	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/audit"
)

// AuditLines lists up to limit lines of the audit after a number.
func (c *Client) AuditLines(ctx context.Context, after int64, limit int) ([]audit.Line, error) {
	q := url.Values{"after": {strconv.FormatInt(after, 10)}, "limit": {strconv.Itoa(limit)}}
	out, err := answered[api.Audited](ctx, c, ask{route: "list-audit", query: q})
	return out.Lines, err
}

// VerifyAudit has the whole audit read, and compared with heads that were kept
// elsewhere, NUMBER:HASH.
func (c *Client) VerifyAudit(ctx context.Context, heads []string) (api.Verdict, error) {
	return answered[api.Verdict](ctx, c, ask{route: "verify-audit", query: url.Values{"head": heads}})
}
