"""Every script key and both formats, through real clients. Prints TAP."""

import contextlib
import gzip
import json
import ssl
import time
import urllib.parse

from testkit import (
    ANTHROPIC, OPENAI, anthropic_deltas, ask, body_of, chunks, connect, curl, deltas, dial,
    equal, events, exchange_raw, headers_of, holds, provider, raw_request, receive_all,
    receive_until, run_tests, split_head, test, tls_socket)

# Both formats, as they should be.

@test
def openai_whole(p):
    r, body = ask(p, prompt='say "hi"\n')
    answer = json.loads(body)
    equal((r.status, answer["object"], answer["model"]), (200, "chat.completion", "fake"))
    choice = answer["choices"][0]
    equal(choice["finish_reason"], "stop")
    holds(choice["message"]["content"].startswith('You asked: "say "hi"\n". A rate budget'),
          choice)
    usage = answer["usage"]
    equal(usage["total_tokens"], usage["prompt_tokens"] + usage["completion_tokens"])
    equal(usage["completion_tokens"], len(choice["message"]["content"].split(" ")))


@test
def openai_stream(p):
    r, body = ask(p, stream=True)
    equal(r.getheader("content-type"), "text/event-stream; charset=utf-8")
    equal(events(body)[-1], (None, "[DONE]"))
    got = chunks(body)
    equal(got[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
    equal(got[-1]["choices"][0]["finish_reason"], "stop")
    holds(all("usage" not in c for c in got))
    _, whole = ask(p)
    equal("".join(deltas(body)), json.loads(whole)["choices"][0]["message"]["content"])


@test
def openai_include_usage(p):
    _, body = ask(p, "chunks=4", stream=True, stream_options={"include_usage": True})
    got = chunks(body)
    equal((got[-1]["choices"], got[-1]["usage"]["completion_tokens"]), ([], 4))
    holds(all(c["usage"] is None for c in got[:-1]))


@test
def anthropic_whole(p):
    r, body = ask(p, path=ANTHROPIC)
    answer = json.loads(body)
    equal((r.status, answer["type"], answer["stop_reason"]), (200, "message", "end_turn"))
    holds(answer["content"][0]["text"].startswith('You asked: "what is a budget?". A rate'))
    holds(r.getheader("request-id"))


@test
def anthropic_stream(p):
    _, body = ask(p, "chunks=3&reasoning=2", path=ANTHROPIC, stream=True)
    got = events(body)
    for name, data in got:
        equal(json.loads(data)["type"], name)
    equal([name for name, _ in got], [
        "message_start", "ping",
        "content_block_start", *["content_block_delta"] * 3, "content_block_stop",
        "content_block_start", *["content_block_delta"] * 3, "content_block_stop",
        "message_delta", "message_stop"])
    equal("".join(anthropic_deltas(body)), "You asked: \"what")
    equal("".join(anthropic_deltas(body, "thinking_delta", "thinking")), "The user")
    equal(chunks(body)[-2]["usage"]["output_tokens"], 5)


@test
def requests_real_services_refuse(p):
    with contextlib.closing(connect(p)) as c:
        for path, text, status in ((OPENAI, "{", 400), (OPENAI, "[]", 400),
                                   (OPENAI, '{"messages":[]}', 400),
                                   (OPENAI, '{"model":"m"}', 400),
                                   (ANTHROPIC, '{"model":"m","messages":[]}', 400),
                                   ("/v2/else", "{}", 404)):
            c.request("POST", path, text, headers_of(path))
            r = c.getresponse()
            holds(b'"error"' in r.read())
            equal((path, text, r.status), (path, text, status))
        c.request("POST", ANTHROPIC, body_of(), {"x-api-key": "k"})
        r = c.getresponse()
        holds(b"anthropic-version" in r.read())
        c.request("GET", OPENAI)
        r = c.getresponse()
        r.read()
        equal(r.status, 405)


# The script keys.

@test
def scripts_three_places_and_their_order(p):
    try:
        p.set_script("# a comment\nother: status=500\nfake: status=503; chunks=2\n*: status=418")
        equal(ask(p)[0].status, 503)
        h = headers_of(OPENAI, **{"x-fake": "status=502"})
        equal(ask(p, headers=h)[0].status, 502)
        equal(ask(p, "status=529", headers=h)[0].status, 529)
        r, body = ask(p, "status=200", headers=h)
        equal(json.loads(body)["usage"]["completion_tokens"], 2)
        p.set_script("/v1/messages: status=500")
        equal(ask(p)[0].status, 200)
        equal(ask(p, path=ANTHROPIC)[0].status, 500)
    finally:
        p.set_script("")


@test
def script_mistakes_are_told(p):
    for keys in ("no_such_key=1", "chunks=many", "malformed=yes", "status=7"):
        r, body = ask(p, keys)
        equal((keys, r.status), (keys, 400))
        holds(b"fakeprovider: " in body, body)
    for rules, line in (("*: chunks=1\n*: chunk=1", "line 2"), ("*: chunks=x", "line 1")):
        try:
            p.set_script(rules)
            raise RuntimeError("accepted")
        except ValueError as e:
            holds(line in str(e), e)


@test
def key_times(p):
    got = [ask(p, "status=503&times=2")[0].status for _ in range(4)]
    equal(got, [503, 503, 200, 200])
    p.reset()
    equal(ask(p, "status=503&times=2")[0].status, 503)


@test
def keys_delays(p):
    with contextlib.closing(connect(p)) as c:
        begin = time.monotonic()
        c.request("POST", OPENAI, body_of("first_ms=60&ttft_ms=50&delay_ms=10&chunks=5", True),
                  headers_of(OPENAI))
        r = c.getresponse()
        holds(time.monotonic() - begin >= 0.06, "headers came early")
        r.read()
        holds(time.monotonic() - begin >= 0.15, "the last chunk came early")


@test
def keys_chunks_and_bytes(p):
    _, body = ask(p, "chunks=7&chunk_bytes=100", stream=True)
    equal([len(d) for d in deltas(body)], [100] * 7)
    _, body = ask(p, "chunks=250", stream=True)
    equal(len(deltas(body)), 250)
    _, body = ask(p, "chunks=0", stream=True)
    equal(deltas(body), [])
    equal(chunks(body)[-1]["choices"][0]["finish_reason"], "stop")


@test
def key_big(p):
    _, body = ask(p, "big=3000001")
    equal(len(json.loads(body)["choices"][0]["message"]["content"]), 3000001)
    _, body = ask(p, "big=3000001&chunks=40", stream=True, tls=True)
    texts = deltas(body)
    equal((len(texts), sum(map(len, texts))), (40, 3000001))


@test
def key_echo(p):
    prompt = ' Größe 😀 "quoted\\" \t\x01 end  '
    for path in (OPENAI, ANTHROPIC):
        _, body = ask(p, "echo=1", path=path, stream=True, prompt=prompt)
        equal("".join((deltas if path == OPENAI else anthropic_deltas)(body)), prompt)
    long = "ä" * 200
    _, body = ask(p, prompt=long)
    holds(json.loads(body)["choices"][0]["message"]["content"].startswith('You asked: "äää'))


@test
def key_reasoning(p):
    _, body = ask(p, "reasoning=3&chunks=2", stream=True)
    equal("".join(deltas(body, "reasoning_content")), "The user asks;")
    equal(len(deltas(body)), 2)
    _, body = ask(p, "reasoning=3&chunks=2")
    answer = json.loads(body)
    equal(answer["choices"][0]["message"]["reasoning_content"], "The user asks;")
    equal(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], 3)
    _, body = ask(p, "reasoning=3&chunks=2", path=ANTHROPIC)
    equal(json.loads(body)["content"][0]["thinking"], "The user asks;")


WEATHER = {"location": "Paris", "unit": "celsius"}


@test
def key_tools_openai(p):
    offered = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]
    _, body = ask(p, "tools=2", stream=True, tools=offered)
    calls = {}
    for delta in deltas(body, "tool_calls"):
        call = calls.setdefault(delta[0]["index"], {"arguments": ""})
        call.update({k: delta[0][k] for k in ("id", "type") if k in delta[0]})
        call["name"] = delta[0]["function"].get("name", call.get("name"))
        call["arguments"] += delta[0]["function"]["arguments"]
    equal([json.loads(calls[i]["arguments"]) for i in range(2)], [WEATHER, WEATHER])
    equal((calls[1]["name"], calls[1]["type"]), ("look_up", "function"))
    holds(calls[0]["id"] != calls[1]["id"])
    equal(chunks(body)[-1]["choices"][0]["finish_reason"], "tool_calls")
    _, body = ask(p, "tools=1")
    message = json.loads(body)["choices"][0]["message"]
    equal((message["content"], message["tool_calls"][0]["function"]["name"]),
          (None, "get_weather"))
    equal(json.loads(message["tool_calls"][0]["function"]["arguments"]), WEATHER)


@test
def key_tools_anthropic(p):
    offered = [{"name": "look_up", "input_schema": {"type": "object"}}]
    _, body = ask(p, "tools=2&chunks=1", path=ANTHROPIC, stream=True, tools=offered)
    starts = [c for c in chunks(body) if c["type"] == "content_block_start"]
    equal([(s["index"], s["content_block"]["type"]) for s in starts],
          [(0, "text"), (1, "tool_use"), (2, "tool_use")])
    equal(starts[1]["content_block"]["name"], "look_up")
    joined = "".join(anthropic_deltas(body, "input_json_delta", "partial_json"))
    equal(joined, '{"location":"Paris","unit":"celsius"}' * 2)
    equal(chunks(body)[-2]["delta"]["stop_reason"], "tool_use")
    _, body = ask(p, "tools=1", path=ANTHROPIC)
    equal(json.loads(body)["content"][0]["input"], WEATHER)


@test
def key_finish(p):
    _, body = ask(p, "finish=length&chunks=1", stream=True)
    equal(chunks(body)[-1]["choices"][0]["finish_reason"], "length")
    _, body = ask(p, "finish=length", path=ANTHROPIC)
    equal(json.loads(body)["stop_reason"], "max_tokens")
    _, body = ask(p, "finish=content_filter")
    equal(json.loads(body)["choices"][0]["finish_reason"], "content_filter")


@test
def key_usage(p):
    for path in (OPENAI, ANTHROPIC):
        for stream in (False, True):
            _, body = ask(p, "usage=0&chunks=2", path=path, stream=stream)
            holds(b'"usage"' not in body, body)
    _, body = ask(p, "usage=1&chunks=3", stream=True)
    equal(chunks(body)[-1]["usage"]["completion_tokens"], 3)
    _, body = ask(p, "usage=every&chunks=3", stream=True)
    equal([c["usage"]["completion_tokens"] for c in chunks(body)], [0, 1, 2, 3, 3])


@test
def key_status_and_error_texts(p):
    r, body = ask(p, "status=429&retry_after=7&retry_after_ms=6500", stream=True)
    equal((r.status, r.getheader("retry-after"), r.getheader("retry-after-ms")),
          (429, "7", "6500"))
    equal(json.loads(body)["error"]["code"], "rate_limit_exceeded")
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    r, _ = ask(p, "status=503&retry_after=" + urllib.parse.quote(date))
    equal(r.getheader("retry-after"), date)
    keys = "status=400&error_type=t%22&error_code=c&error_message=too%20long%3B%20really"
    equal(json.loads(ask(p, keys)[1])["error"],
          {"message": "too long; really", "type": 't"', "param": None, "code": "c"})
    r, body = ask(p, "status=529", path=ANTHROPIC)
    equal((r.status, json.loads(body)["error"]["type"]), (529, "overloaded_error"))
    r, body = ask(p, "status=204")
    equal((r.status, body), (204, b""))
    equal(ask(p, "status=201")[0].status, 201)


@test
def key_redirect(p):
    r, _ = ask(p, "redirect=" + urllib.parse.quote("http://127.0.0.1:1/x?a=b&c=d", safe=""))
    equal((r.status, r.getheader("location")), (307, "http://127.0.0.1:1/x?a=b&c=d"))


@test
def key_cut_fin(p):
    data, error = exchange_raw(p, "cut_bytes=100")
    head, body = split_head(data)
    holds(b"content-length: " in head and error is None, head, error)
    equal(len(body), 100)
    data, error = exchange_raw(p, "cut_bytes=0", stream=True)
    equal((split_head(data)[1], error), (b"", None))
    data, _ = exchange_raw(p, "cut_bytes=400&delay_ms=1", stream=True)
    holds(b"0\r\n\r\n" not in data and b"[DONE]" not in data, data)


@test
def key_cut_rst(p):
    data, error = exchange_raw(p, "cut_bytes=300&cut=rst&delay_ms=1", stream=True)
    holds(isinstance(error, ConnectionResetError), error)
    holds(b"HTTP/1.1 200" in data, data)


@test
def key_cut_tls_has_close_notify(p):
    result = curl(p, "cut_bytes=100", tls=True)
    equal(result.returncode, 18)


@test
def key_stall_after(p):
    with dial(p) as s:
        s.sendall(raw_request("stall_after=3", stream=True))
        data = receive_until(s, b' \\"what"')
        s.settimeout(0.2)
        try:
            more = s.recv(1000)
        except TimeoutError:
            more = None
        equal(more, None)
        equal(data.count(b'"content":"'), 4)
    p.wait_stats(lambda stats: stats["in_flight"] == 0)


@test
def key_no_terminal(p):
    _, body = ask(p, "no_terminal=1&chunks=2", stream=True)
    holds(b"[DONE]" not in body and b'"finish_reason":"' not in body)
    equal(len(deltas(body)), 2)
    _, body = ask(p, "no_terminal=1&chunks=2", path=ANTHROPIC, stream=True)
    holds(b"message_stop" not in body and b"message_delta" not in body)


@test
def key_inband_error(p):
    _, body = ask(p, "inband_error=2&chunks=5&error_message=broke", stream=True)
    equal((len(deltas(body[:body.index(b'data: {"error')])), b"[DONE]" in body), (2, False))
    equal(chunks_last(body)["error"]["message"], "broke")
    _, body = ask(p, "inband_error=2&chunks=5", path=ANTHROPIC, stream=True)
    equal(events(body)[-1][0], "error")
    equal(chunks_last(body)["error"]["type"], "overloaded_error")


def chunks_last(body):
    return json.loads(events(body)[-1][1])


@test
def key_malformed(p):
    for path in (OPENAI, ANTHROPIC):
        for kind in ("json", "utf8", "sse", "nul"):
            _, body = ask(p, f"malformed={kind}&chunks=3", path=path, stream=True)
            bad = 0
            for block in body.split(b"\n\n"):
                data = b"\n".join(line[6:] for line in block.split(b"\n")
                                  if line.startswith(b"data: "))
                try:
                    holds(not data or data == b"[DONE]" or json.loads(data.decode()))
                except ValueError:
                    bad += 1
            equal((path, kind, bad), (path, kind, 1))
            try:
                json.loads(ask(p, f"malformed={kind}", path=path)[1].decode())
                raise RuntimeError("parsed " + kind)
            except ValueError:
                pass


@test
def key_slow_headers(p):
    with dial(p) as s:
        s.sendall(raw_request("slow_headers_ms=1&chunks=1"))
        sizes, data = [], b""
        while b"\r\n\r\n" not in data:
            part = s.recv(65536)
            sizes.append(len(part))
            data += part
    holds(sizes[:20].count(1) > 10, sizes)


@test
def key_split(p):
    r, body = ask(p, "split=7&split_us=50&chunks=3&chunk_bytes=20", stream=True)
    equal(len(deltas(body)), 3)
    with dial(p) as plain:
        plain.sendall(raw_request("split=10&split_us=2000&chunks=1"))
        receive_until(plain, b"\r\n\r\n")
        holds(all(len(plain.recv(65536)) % 10 == 0 for _ in range(5)))
    with tls_socket(p) as s:
        s.sendall(raw_request("split=10&chunks=1"))
        holds(s.recv(65536).endswith(b"\r\n\r\n"), "the head is not whole or not alone")
        equal([len(s.recv(65536)) for _ in range(5)], [10] * 5)


@test
def key_http_close(p):
    data, error = exchange_raw(p, "http=close")
    head, body = split_head(data)
    holds(b"connection: close" in head and error is None)
    json.loads(body)


@test
def key_length(p):
    for stream in (False, True):
        data, _ = exchange_raw(p, "length=none&chunks=2", stream=stream)
        head, body = split_head(data)
        holds(b"content-length" not in head and b"transfer-encoding" not in head, head)
        holds(b"[DONE]" in body if stream else json.loads(body))
        data, _ = exchange_raw(p, "length=wrong_long&chunks=2", stream=stream)
        head, body = split_head(data)
        equal(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]), len(body) + 7)
        data, _ = exchange_raw(p, "length=wrong_short&http=close&chunks=2", stream=stream)
        head, body = split_head(data)
        equal(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]), len(body) - 7)


@test
def key_chunked_trailers(p):
    for stream in (False, True):
        data, _ = exchange_raw(p, "chunked_trailers=1&http=close&chunks=2", stream=stream)
        holds(data.endswith(b"\r\n0\r\nx-fake-trailer: done\r\n\r\n"), data[-60:])
    equal(curl(p, "chunked_trailers=1").returncode, 0)


@test
def key_continue100(p):
    data, _ = exchange_raw(p, "continue100=3&http=close")
    holds(data.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 "), data[:80])
    equal((data.count(b"HTTP/1.1 1"), data.count(b"HTTP/1.1 200")), (3, 1))
    json.loads(curl(p, "continue100=3").stdout)


@test
def expect_100_continue(p):
    body = body_of().encode()
    head = (f"POST {OPENAI} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
            "expect: 100-continue\r\nconnection: close\r\n\r\n").encode()
    with dial(p) as s:
        s.sendall(head)
        equal(receive_until(s, b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n")
        s.sendall(body)
        holds(receive_all(s)[0].startswith(b"HTTP/1.1 200"))


@test
def key_headers(p):
    r, _ = ask(p, "headers=" + urllib.parse.quote("X-One: 1|x-two: a, b"))
    equal((r.getheader("x-one"), r.getheader("x-two")), ("1", "a, b"))
    p.set_script("*: status=429; headers=anthropic-ratelimit-tokens-remaining: 0")
    r, _ = ask(p)
    p.set_script("")
    equal((r.status, r.getheader("anthropic-ratelimit-tokens-remaining")), (429, "0"))


@test
def keys_of_tokens(_):
    with provider(log=True) as p:
        for path, names in ((OPENAI, ("prompt_tokens", "completion_tokens")),
                            (ANTHROPIC, ("input_tokens", "output_tokens"))):
            _, body = ask(p, "input_tokens=1234&output_tokens=56", path=path)
            usage = json.loads(body)["usage"]
            equal(tuple(usage[n] for n in names), (1234, 56))
            end = p.ends()[-1]
            equal((end["input_tokens"], end["output_tokens"]), (1234, 56))
        ask(p, "output_tokens=100&chunks=4", stream=True)
        equal(p.ends()[-1]["output_tokens"], 100)
        ask(p, "status=500&output_tokens=100")
        equal((p.ends()[-1]["input_tokens"], p.ends()[-1]["output_tokens"]), (0, 0))


@test
def key_junk_after(p):
    with dial(p) as s:
        s.sendall(raw_request("junk_after=1&chunks=1"))
        data = receive_until(s, b"asked for\r\n\r\n")
        equal(data.count(b"HTTP/1.1 "), 2)
        s.sendall(raw_request("http=close"))
        holds(b"HTTP/1.1 200" in receive_all(s)[0])


@test
def key_stale(p):
    data, error = exchange_raw(p, "stale=1")
    head, body = split_head(data)
    holds(b"connection: close" not in head and error is None)
    json.loads(body)


@test
def key_close_on_reuse(p):
    with dial(p) as s:
        s.sendall(raw_request("close_on_reuse=1&chunks=0"))
        receive_until(s, b"}}}")
        s.sendall(raw_request())
        equal(receive_all(s)[0], b"")


@test
def key_gzip(p):
    for keys in ("gzip=1", "gzip=1&chunked_trailers=1", "gzip=1&big=200000"):
        r, body = ask(p, keys)
        equal(r.getheader("content-encoding"), "gzip")
        json.loads(gzip.decompress(body))
    _, body = ask(p, "gzip=1&chunks=3", stream=True)
    equal(len(deltas(gzip.decompress(body))), 3)


@test
def keys_comments_and_crlf(p):
    for path in (OPENAI, ANTHROPIC):
        _, body = ask(p, "comments=2&crlf=1&chunks=3", path=path, stream=True)
        equal(body.count(b": PROCESSING\r\n\r\n"), 6)
        equal(body.count(b"\n"), body.count(b"\r\n"))
        equal(len((deltas if path == OPENAI else anthropic_deltas)(body)), 3)


@test
def key_tls_close(p):
    with tls_socket(p) as s:
        s.suppress_ragged_eofs = False
        s.sendall(raw_request("tls_close=1"))
        holds(isinstance(receive_all(s)[1], ssl.SSLEOFError))
    with tls_socket(p) as s:
        s.suppress_ragged_eofs = False
        s.sendall(raw_request("http=close"))
        equal(receive_all(s)[1], None)


@test
def keys_together(p):
    keys = ("reasoning=2&chunks=3&tools=1&comments=1&crlf=1&split=5&chunked_trailers=1&"
            "continue100=1&usage=1&first_ms=1&ttft_ms=1&delay_ms=1&gzip=1&finish=length")
    for tls in (False, True):
        _, body = ask(p, keys, stream=True, tls=tls)
        body = gzip.decompress(body)
        equal((len(deltas(body)), len(deltas(body, "reasoning_content"))), (3, 2))
        equal(events(body)[-1][1], "[DONE]")
        equal(chunks(body)[-1]["usage"]["completion_tokens"], 9)


run_tests()
