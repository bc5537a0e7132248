package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/certfarm/certfarm/internal/audit"
	"github.com/certfarm/certfarm/internal/controller"
)

type auditAsk struct {
	After int64 `query:"after" minimum:"0" doc:"lines after this number"`
	Limit int   `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

// Audited is a page of lines of the audit, in their order.
type Audited struct {
	Lines []audit.Line `json:"lines"`
	More
}

func (s *server) listAudit(ctx context.Context, in *auditAsk) (Audited, error) {
	all, err := s.doorkeeper.Book.Lines(ctx, in.After, in.Limit)
	out := Audited{Lines: list(all)}
	if len(all) == in.Limit {
		out.Next = strconv.FormatInt(in.After+int64(len(all)), 10) // the numbers have no gaps
	}
	return out, err
}

type verifyAuditAsk struct {
	Heads []string `query:"head,explode" maxItems:"100" doc:"hashes that were kept elsewhere, NUMBER:HASH"`
}

// Verdict is what became of reading the whole audit.
type Verdict struct {
	audit.Proof
	Broken string `json:"broken,omitempty" doc:"where and how, if it is"`
}

func (s *server) verifyAudit(ctx context.Context, in *verifyAuditAsk) (Verdict, error) {
	var heads []audit.Head
	for _, text := range in.Heads {
		number, hash, ok := strings.Cut(text, ":")
		seq, err := strconv.ParseInt(number, 10, 64)
		if !ok || err != nil || seq < 1 || hash == "" {
			return Verdict{}, &controller.Refusal{Problem: fmt.Sprintf("%q is no head of the audit", text), Hint: "a head is NUMBER:HASH, as `certfarm audit verify` prints it"}
		}
		heads = append(heads, audit.Head{Seq: seq, Hash: hash})
	}
	p, err := s.doorkeeper.Book.Verify(ctx, heads)
	if b, ok := errors.AsType[*audit.Break](err); ok {
		return Verdict{p, b.Error()}, nil
	}
	return Verdict{Proof: p}, err
}
