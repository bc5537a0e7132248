package cloud

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/outbound"
)

// maxLag is the longest time that readers may be said to take.
const (
	day    = 24 * time.Hour
	maxLag = 14 * day
)

// unreachable says of an error that is no answer that the server could not be
// reached, so that the rollout knows that the answer may have been lost.
func unreachable(err error) error {
	if errors.Is(err, host.ErrUnreachable) || errors.Is(err, outbound.ErrRedirect) || errors.Is(err, outbound.ErrForbidden) {
		return err
	}
	_, wire := errors.AsType[net.Error](err) // *url.Error is one
	if wire || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", host.ErrUnreachable, err)
	}
	return err
}

// first is the first error that is one.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// lagOf reads the option lag, written as durations are in farm.yaml: with days.
func lagOf(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := duration(text)
	if err != nil || d < 0 || d > maxLag {
		return 0, &deploy.FieldError{Field: "lag", Problem: fmt.Sprintf("%q is no time up to %d days", text, maxLag/day), Hint: "as in 90m, 4h or 3d"}
	}
	return d, nil
}

func duration(text string) (time.Duration, error) {
	before, rest, found := strings.Cut(text, "d")
	if !found {
		return time.ParseDuration(text)
	}
	days, err := strconv.ParseUint(before, 10, 16)
	if err != nil || rest == "" {
		return time.Duration(days) * day, err
	}
	d, err := time.ParseDuration(rest)
	return time.Duration(days)*day + d, err
}

// checkRoots checks an option with certificates in PEM.
func checkRoots(field, roots string) error {
	if roots != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(roots)) {
		return &deploy.FieldError{Field: field, Problem: "it holds no PEM certificate", Hint: "the text of the certificate, not its file: `ca: |` and the lines below"}
	}
	return nil
}
