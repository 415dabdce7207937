package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/kiln-build/kiln/tools/exitcode"
)

// ErrNotFound means that a mirror answered and has no such file.
var ErrNotFound = errors.New("not found")

// MismatchError means that a mirror served other bytes than were announced.
type MismatchError struct {
	URL       string
	Want, Got string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s: wrong checksum: want sha256 %s, got %s", e.URL, e.Want, e.Got)
}

// Client fetches from mirrors. The zero value is not usable; see NewClient.
type Client struct {
	http *http.Client
	// pauses are the waits between attempts.
	pauses []time.Duration
}

// NewClient makes a client that tries anew after each of the pauses when a
// mirror is out of reach or says that it is busy.
func NewClient(pauses ...time.Duration) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = 30 * time.Second
	transport.MaxIdleConnsPerHost = 8
	// Indexes are compressed as they are.
	transport.DisableCompression = true
	return &Client{http: &http.Client{Transport: transport}, pauses: pauses}
}

// Get fetches one file of at most limit bytes. A file that is not there is
// ErrNotFound; a mirror that does not answer has exit code Unreachable.
func (c *Client) Get(ctx context.Context, url string, limit int64) ([]byte, error) {
	var data []byte
	err := c.retry(ctx, http.MethodGet, url, func(resp *http.Response) error {
		var err error
		data, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
		if err == nil && int64(len(data)) > limit {
			return exitcode.With(exitcode.Unverified, fmt.Errorf("%s: more than the %d bytes that were announced", url, limit))
		}
		return err
	})
	return data, err
}

// GetVerified fetches one file whose checksum is known.
func (c *Client) GetVerified(ctx context.Context, url, sum string, size int64) ([]byte, error) {
	data, err := c.Get(ctx, url, size)
	if err != nil {
		return nil, err
	}
	got := sha256.Sum256(data)
	if hex.EncodeToString(got[:]) != sum {
		return nil, exitcode.With(exitcode.Unverified,
			&MismatchError{URL: url, Want: sum, Got: hex.EncodeToString(got[:])})
	}
	return data, nil
}

// Has asks whether a mirror has a file of this size.
func (c *Client) Has(ctx context.Context, url string, size int64) (bool, error) {
	found := false
	err := c.retry(ctx, http.MethodHead, url, func(resp *http.Response) error {
		found = resp.ContentLength < 0 || resp.ContentLength == size
		return nil
	})
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return found, err
}

func (c *Client) retry(ctx context.Context, method, url string, use func(*http.Response) error) error {
	for attempt := 0; ; attempt++ {
		again, err := c.once(ctx, method, url, use)
		if err == nil || !again || attempt == len(c.pauses) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(c.pauses[attempt]):
		}
	}
}

// once makes one attempt, and says whether another may help.
func (c *Client) once(ctx context.Context, method, url string, use func(*http.Response) error) (again bool, err error) {
	unreachable := func(err error) error {
		return exitcode.With(exitcode.Unreachable, fmt.Errorf("fetching %s: %w", url, err))
	}
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return false, exitcode.With(exitcode.BadInput, fmt.Errorf("address %q: %w", url, err))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		// The address stands in the error of net/http as well.
		var inner interface{ Unwrap() error }
		if errors.As(err, &inner) && strings.Contains(err.Error(), url) {
			err = inner.Unwrap()
		}
		return ctx.Err() == nil, unreachable(err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK:
		if err := use(resp); err != nil {
			if exitcode.Of(err) != exitcode.Failed {
				return false, err
			}
			return true, unreachable(err)
		}
		return false, nil
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone:
		return false, fmt.Errorf("fetching %s: %w", url, ErrNotFound)
	default:
		busy := resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests
		return busy, unreachable(errors.New("the mirror says " + resp.Status))
	}
}

func matches(data []byte, file IndexFile) bool {
	sum := sha256.Sum256(data)
	return int64(len(data)) == file.Size && hex.EncodeToString(sum[:]) == file.SHA256
}
