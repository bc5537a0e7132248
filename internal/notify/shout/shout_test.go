package shout

import (
	"errors"
	"net/http"
	"slices"
	"testing"
)

// stopped is a transport that lets nothing out.
type stopped struct{ asked int }

var errStopped = errors.New("stopped at the guard")

func (s *stopped) RoundTrip(*http.Request) (*http.Response, error) {
	s.asked++
	return nil, errStopped
}

// Every service that is named goes out through the transport that Main gives it, and
// through nothing else.
func TestEveryServiceIsGuarded(t *testing.T) {
	was := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = was })
	urls := map[string]string{
		"bark": "bark://:key@localhost:1/", "discord": "discord://token@123456789012345678", "googlechat": "googlechat://chat.googleapis.com/v1/spaces/A/messages?key=k&token=t",
		"gotify": "gotify://localhost:1/AaaaaaaaaaaaaaA", "ifttt": "ifttt://key/?events=e", "join": "join://:key@join/?devices=d",
		"lark": "lark://open.larksuite.com/token", "matrix": "matrix://:token@localhost:1/?rooms=!r:localhost", "mattermost": "mattermost://localhost:1/token",
		"notifiarr": "notifiarr://apikey", "ntfy": "ntfy://localhost:1/topic", "opsgenie": "opsgenie://api.opsgenie.com/eb243592-faa2-4ba2-a551q-1afdf565c889",
		"pushbullet": "pushbullet://" + "abcdefghijklmnopqrstuvwxyz12345678", "pushover": "pushover://:token@user/", "rocketchat": "rocketchat://localhost:1/tokenA/tokenB",
		"signal": "signal://localhost:1/+15551234567/+15557654321", "telegram": "telegram://110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw@telegram?chats=@c",
		"wecom": "wecom://key", "zulip": "zulip://bot@example.com:key@chat.example.com?stream=s&topic=t",
	}
	for _, name := range Services() {
		s := &stopped{}
		http.DefaultTransport = s
		err := Send(Request{URL: urls[name], Text: "x"}, s)
		if s.asked == 0 {
			t.Errorf("%s does not go through the guard: %v", name, err)
		}
	}
	for _, other := range []string{"smtp://localhost:1/?from=a@b.c&to=a@b.c", "generic://localhost:1/", "logger://", "slack://a/b/c", "nothing", "https://localhost:1/"} {
		s := &stopped{}
		http.DefaultTransport = s
		if err := Send(Request{URL: other, Text: "x"}, s); err == nil || s.asked > 0 {
			t.Errorf("%s is sent: %v", other, err)
		}
	}
	if !slices.IsSorted(Services()) {
		t.Error("the services are not in order")
	}
}
