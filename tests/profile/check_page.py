#!/usr/bin/env python3
"""What can be told of a report without a browser: check_page.py REPORT.html ...

Well-formed: every element is closed where it should be, every id is there once, links lead somewhere.
Nothing comes from elsewhere: no address, no src, no import, and a policy that forbids it. The data are JSON,
and have what the sections ask for. The parts that the program puts in are all put in."""
import html.parser
import json
import re
import sys

EMPTY = {"meta", "link", "br", "hr", "img", "input"}
KEYS = {"finding", "run", "facts", "ranks", "nodes", "steps", "heat", "phases", "whatif", "critical", "rows", "experts", "placement",
        "saves", "sources", "problems"}


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.links, self.text, self.bad = [], [], [], {}, []

    def handle_starttag(self, tag, attributes):
        about = dict(attributes)
        if len(about) != len(attributes):
            self.bad.append(f"<{tag}> has an attribute twice")
        if tag not in EMPTY:
            self.open.append((tag, about.get("id")))
        self.ids += [about["id"]] if "id" in about else []
        for name, value in attributes:
            if name in ("src", "srcset", "action", "data", "poster", "ping"):
                self.bad.append(f"<{tag}> has {name}")
            if name.startswith("on"):
                self.bad.append(f"<{tag}> has {name}")
            if name == "href":
                if value.startswith("#"):
                    self.links.append(value[1:])
                elif value != "data:,":
                    self.bad.append(f"<{tag}> leads to {value}")

    def handle_endtag(self, tag):
        if not self.open or self.open[-1][0] != tag:
            self.bad.append(f"</{tag}> where {self.open[-1:]} is open")
        else:
            self.open.pop()

    def handle_data(self, data):
        if self.open:
            key = self.open[-1]
            self.text[key] = self.text.get(key, "") + data


def check(path):
    with open(path, encoding="utf-8") as stream:
        source = stream.read()
    page = Page()
    page.feed(source)
    page.close()
    bad = page.bad
    if page.open:
        bad.append(f"never closed: {page.open}")
    bad += [f"#{name} is there {page.ids.count(name)} times" for name in set(page.ids) if page.ids.count(name) > 1]
    bad += [f"#{name} leads nowhere" for name in page.links if name not in page.ids]
    data = page.text.get(("script", "data"), "")
    if re.search(r"https?://|@import|url\(|\bfetch\(|XMLHttp|WebSocket|import\(", source.replace(
            "http://www.w3.org/2000/svg", "")):
        bad.append("it speaks of an address or a request")
    if "default-src 'none'" not in source:
        bad.append("no policy forbids requests")
    if "{{" in source.replace(data, ""):
        bad.append("a part was not put in")
    missing = KEYS - set(json.loads(data, parse_constant=lambda word: bad.append(f"{word} in the data")))
    bad += [f"no {key} in the data" for key in missing]
    text = page.text.get(("pre", None), "")
    if not text.startswith("finding: "):
        bad.append("the plain text does not begin with the finding")
    return bad


if __name__ == "__main__":
    failed = False
    for name in sys.argv[1:]:
        for complaint in check(name):
            failed = True
            print(f"{name}: {complaint}")
    sys.exit(failed)
