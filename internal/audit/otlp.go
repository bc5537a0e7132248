package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"
)

// logsPath is where a collector takes logs (OTLP specification, OTLP/HTTP).
const logsPath = "/v1/logs"

// otlp sends lines to a collector, a record each: its body is the line as JSON, with its
// hash, as in the other ways.
func (s Sender) otlp(ctx context.Context, lines []Line) error {
	var records []*logs.LogRecord
	for _, l := range lines {
		text, err := json.Marshal(l)
		if err != nil {
			return err
		}
		var e Entry
		if err := json.Unmarshal(l.Entry, &e); err != nil {
			return fmt.Errorf("read a line of the audit: %w", err)
		}
		records = append(records, &logs.LogRecord{
			TimeUnixNano: uint64(e.At.UnixNano()), SeverityNumber: logs.SeverityNumber_SEVERITY_NUMBER_INFO2, // as syslog's notice
			Body: said(string(text)), Attributes: words("certfarm.audit.actor", e.Actor, "certfarm.audit.action", e.Action, "certfarm.audit.hash", l.Hash),
		})
	}
	body, err := proto.Marshal(&collector.ExportLogsServiceRequest{ResourceLogs: []*logs.ResourceLogs{{
		Resource:  &resource.Resource{Attributes: words("service.name", "certfarm")},
		ScopeLogs: []*logs.ScopeLogs{{Scope: &common.InstrumentationScope{Name: "certfarm/audit"}, LogRecords: records}},
	}}})
	if err != nil {
		return err
	}
	to := *s.To
	to.Scheme = strings.TrimPrefix(to.Scheme, "otlp+")
	if !strings.HasSuffix(to.Path, logsPath) {
		to = *to.JoinPath(logsPath)
	}
	return s.post(ctx, to.String(), "application/x-protobuf", body)
}

func said(text string) *common.AnyValue {
	return &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: text}}
}

// words are attributes: name, value, name, value….
func words(all ...string) (out []*common.KeyValue) {
	for i := 0; i+1 < len(all); i += 2 {
		out = append(out, &common.KeyValue{Key: all[i], Value: said(all[i+1])})
	}
	return out
}
