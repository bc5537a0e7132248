package iis

import (
	"bytes"
	"compress/gzip"
	"context"
	_ "embed" // the scripts
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// The scripts, as they are sent: constants, in ASCII. None is ever put together from
// input.
var (
	//go:embed scripts/common.ps1
	commonScript string
	//go:embed scripts/look.ps1
	lookScript string
	//go:embed scripts/import.ps1
	importScript string
	//go:embed scripts/switch.ps1
	switchScript string
	//go:embed scripts/remove.ps1
	removeScript string
	//go:embed scripts/central.ps1
	centralScript string
)

// bootstrap is all that stands on the command line, which ends at 8191 characters
// where cmd.exe is the shell. It reads one document in base64 from the standard
// input and runs the script in it over the data in it. It reads $input: Windows
// PowerShell reads a redirected standard input into it by itself, so that
// [Console]::In would see a part of it or nothing.
const bootstrap = `$ErrorActionPreference='Stop';$ProgressPreference='SilentlyContinue';` +
	`try{$t=(@($input)-join'')-replace'[^A-Za-z0-9+/=]','';` +
	`$o=[Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($t))|ConvertFrom-Json;` +
	`& ([scriptblock]::Create('param($data)'+[char]10+$o.script)) $o.data}` +
	`catch{[Console]::Error.WriteLine((($_|Out-String -Width 2000)-replace'\s+',' '));exit 1}`

// The marks of an answer. Whatever else PowerShell writes stands outside them.
const (
	answerBegins, answerEnds = "certfarm:", ":end"
	maxAnswer                = 8 << 20 // bytes, unpacked
)

// command is the command line of every script.
func command() []string {
	var raw []byte
	for _, unit := range utf16.Encode([]rune(bootstrap)) {
		raw = append(raw, byte(unit), byte(unit>>8)) // UTF-16LE, as -EncodedCommand wants it
	}
	return []string{"powershell.exe", "-NoProfile", "-NonInteractive", "-InputFormat", "Text", "-OutputFormat", "Text", "-EncodedCommand", base64.StdEncoding.EncodeToString(raw)}
}

// document is what goes over the standard input.
type document struct {
	Script string `json:"script"`
	Data   any    `json:"data"`
}

// shell runs scripts on a node.
type shell struct{ host host.Runner }

// run runs a script over data and returns the lines of its answer. Secrets are in
// data alone, so on no command line; no error holds one of hidden.
func (s shell) run(ctx context.Context, script string, data any, hidden ...farm.Secret) ([]string, error) {
	text, err := json.Marshal(document{commonScript + "\n" + script, data})
	if err != nil {
		return nil, err
	}
	in := append(base64.StdEncoding.AppendEncode(nil, text), '\n')
	out, err := s.host.Run(ctx, command(), in)
	if exit, ok := errors.AsType[*host.ExitError](err); ok {
		return nil, fmt.Errorf("%s%s", said(exit.Output, hidden), hint(string(exit.Output)))
	}
	if err != nil {
		return nil, err
	}
	return answer(out)
}

// said is the last line that a script wrote, without secrets.
func said(output []byte, hidden []farm.Secret) string {
	text := strings.TrimSpace(string(output))
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		text = strings.TrimSpace(text[i+1:])
	}
	for _, s := range hidden {
		if word := string(s.Reveal()); word != "" {
			text = strings.ReplaceAll(text, word, "…")
		}
	}
	if text == "" {
		return "PowerShell failed and said nothing"
	}
	return "PowerShell said: " + text[:min(len(text), 600)]
}

// hint is what to do about a failure that is known by the names in it, which are
// not translated.
func hint(output string) string {
	for _, known := range []struct{ mark, hint string }{
		{"WebCentralCertProvider", ": install the feature Web-CertProvider on the node"},
		{"WebAdministration", ": install the feature Web-Scripting-Tools on the node"},
		{"UnauthorizedAccess", ": the SSH user must be an administrator of the node"},
		{"SecurityException", ": the SSH user must be an administrator of the node"},
	} {
		if strings.Contains(output, known.mark) {
			return known.hint
		}
	}
	return ""
}

// answer takes the lines of an answer out of what PowerShell wrote.
func answer(out []byte) ([]string, error) {
	_, rest, begun := bytes.Cut(out, []byte(answerBegins))
	packed, _, ended := bytes.Cut(rest, []byte(answerEnds))
	if !begun || !ended {
		return nil, fmt.Errorf("%d bytes came from PowerShell and no answer in them; last: %.200q: is powershell.exe Windows PowerShell 5.1, in FullLanguage mode? An answer ends at %d KiB, some 500 bindings", len(out), said(out, nil), host.MaxOutput>>10)
	}
	raw, err := base64.StdEncoding.DecodeString(string(packed))
	if err != nil {
		return nil, fmt.Errorf("reading PowerShell's answer: %w", err)
	}
	zip, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("reading PowerShell's answer: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(zip, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading PowerShell's answer: %w", err)
	}
	return strings.Split(string(text), "\n"), nil
}
