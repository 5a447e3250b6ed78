#!/usr/bin/env python3
"""Opens reports in headless Chromium and fails on anything that a reader would stumble over.

    browser.py REPORT.html ... [--pictures FOLDER] [--section ID ...]

Checked, in light and dark and as wide as a phone: no console message, no exception, no request but
the file itself, every section with a chart, a table or a sentence of its own, nothing wider than the
page, every chart that takes the keyboard answers the arrow keys in words, links lead somewhere.
--pictures writes NAME-light.png and NAME-dark.png, with --section of these sections only.

Talks to the browser by its debugging pipe (file descriptors 3 and 4), so nothing else is needed."""
import argparse
import base64
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

CHECK = """(() => {
  const bad = [];
  for (const section of document.querySelectorAll("main > section")) {
    const title = section.querySelector("h2");
    const body = [...section.children].filter((e) => e !== title &&
      !(e.tagName === "DETAILS" && !e.open)).map((e) => e.textContent.trim()).join(" ");
    if (!title || body.length < 20) bad.push(section.id + " is empty");
    if (!section.querySelector("svg, table, .note, .lead, ul")) bad.push(section.id + " shows nothing");
    for (const place of section.querySelectorAll(".lead, .timeline, .memory, .experts")) {
      if (place.childNodes.length === 0 && !section.querySelector(".note")) {
        bad.push(section.id + ": " + place.className + " is empty");
      }
    }
    if (/NaN|undefined|Infinity/.test(section.textContent)) bad.push(section.id + " shows NaN or undefined");
    for (const text of section.querySelectorAll("svg text")) {
      const box = text.getBoundingClientRect(), page = document.documentElement.clientWidth;
      if (box.width > 0 && (box.left < -1 || box.right > page + 1)) {
        bad.push(section.id + ": '" + text.textContent + "' leaves the page");
      }
    }
    for (const shape of section.querySelectorAll("svg *")) {
      for (const a of shape.attributes) {
        if (/NaN|undefined|Infinity/.test(a.value)) bad.push(section.id + ": " + a.name + "=" + a.value);
      }
    }
  }
  for (const svg of document.querySelectorAll("svg[tabindex]")) {
    const line = svg.closest(".chart, .timeline, .experts").querySelector(".readout");
    svg.focus();
    svg.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
    if (!line || line.textContent.length < 10) bad.push(svg.getAttribute("aria-label") + ": keys say nothing");
    svg.blur();
  }
  for (const svg of document.querySelectorAll("svg")) {
    if (!svg.getAttribute("aria-label") && svg.getAttribute("aria-hidden") !== "true") {
      bad.push("a picture has no name");
    }
  }
  for (const a of document.querySelectorAll("a[href^='#']")) {
    if (!document.getElementById(a.getAttribute("href").slice(1))) bad.push(a.href + " leads nowhere");
  }
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 1) bad.push("the page is " + wide + " px too wide");
  return bad;
})()"""

# Contrast of text against the page, by WCAG: 4.5 at least.
CONTRAST = """(() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = light(parse(getComputedStyle(document.body).backgroundColor));
  const bad = [];
  for (const e of document.querySelectorAll("h1, h2, p, td, th, a, summary, svg text, dt, dd, li")) {
    const style = getComputedStyle(e);
    const ink = light(parse(e.tagName === "text" ? style.fill : style.color));
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (ratio < 4.5) bad.push(e.tagName + " '" + e.textContent.slice(0, 20) + "' has contrast " + ratio.toFixed(1));
  }
  return [...new Set(bad)].slice(0, 5);
})()"""


class Browser:
    def __init__(self, program):
        self.folder = tempfile.mkdtemp()
        to_browser, from_us = os.pipe()
        to_us, from_browser = os.pipe()
        # shell: descriptors 3 and 4 are what the pipe's protocol wants
        command = ('exec "$0" --headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run '
                   '--disable-background-networking --disable-component-update --disable-sync '
                   '--remote-debugging-pipe --user-data-dir="$1" '
                   f'3<&{to_browser} 4>&{from_browser} 2>/dev/null')
        self.process = subprocess.Popen(["bash", "-c", command, program, self.folder],
                                        pass_fds=(to_browser, from_browser))
        os.close(to_browser)
        os.close(from_browser)
        self.out, self.into = from_us, os.fdopen(to_us, "rb")
        self.number, self.events = 0, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = None
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def read(self):
        message = bytearray()
        while True:
            byte = self.into.read(1)
            if byte in (b"", b"\0"):
                break
            message += byte
        if not message:
            raise SystemExit("the browser ended")
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if getattr(self, "session", None):
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait(self, method):
        while not any(e.get("method") == method for e in self.events):
            self.events.append(self.read())

    def run(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in result:
            raise SystemExit(f"the check itself failed: {result['exceptionDetails']}")
        return result["result"].get("value")

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def complaints(events, url):
    """What console, exceptions and network said."""
    for event in events:
        method, about = event.get("method"), event.get("params", {})
        if method == "Runtime.consoleAPICalled":
            yield f"console.{about['type']}: {about['args']}"
        elif method == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            yield f"exception: {details.get('exception', {}).get('description', details['text'])}"
        elif method == "Log.entryAdded":
            yield f"log: {about['entry']['text']}"
        elif method == "Network.requestWillBeSent":
            asked = about["request"]["url"]
            if asked != url and not asked.startswith("data:"):
                yield f"request: {asked}"


def show(browser, url, scheme, width):
    browser.events.clear()
    browser.call("Emulation.setEmulatedMedia",
                 features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900,
                 deviceScaleFactor=1, mobile=False)
    browser.call("Page.navigate", url=url)
    browser.wait("Page.loadEventFired")
    browser.run("new Promise(requestAnimationFrame)")
    found = list(complaints(browser.events, url)) + browser.run(CHECK) + browser.run(CONTRAST)
    return [f"{scheme}, {width} px: {text}" for text in found + list(complaints(browser.events, url))]


def take(browser, path, selector):
    browser.run("document.activeElement.blur()")
    box = browser.run(f"""(() => {{
        const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();
        return [b.left + scrollX, b.top + scrollY, b.width, b.height]; }})()""")
    margin = 0 if selector == "html" else 16
    clip = {"x": max(0, box[0] - margin), "y": max(0, box[1] - margin),
            "width": box[2] + 2 * margin, "height": box[3] + 2 * margin, "scale": 1}
    picture = browser.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
    pathlib.Path(path).write_bytes(base64.b64decode(picture["data"]))


def look_at(browser, report, options):
    found = []
    url = report.resolve().as_uri()
    for scheme, width in (("light", 1100), ("dark", 1100), ("light", 420)):
        found += show(browser, url, scheme, width)
        if options.pictures and width == 1100:
            options.pictures.mkdir(parents=True, exist_ok=True)
            for name in options.section or ["html"]:
                selector = name if name in ("html", "header") else "#" + name
                stem = report.stem + ("" if name == "html" else "-" + name)
                take(browser, options.pictures / f"{stem}-{scheme}.png", selector)
    for text in found:
        print(f"{report}: {text}")
    return len(found)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("report", type=pathlib.Path, nargs="+")
    parser.add_argument("--pictures", type=pathlib.Path)
    parser.add_argument("--section", action="append", default=[])
    options = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise SystemExit("chromium is not installed; expected Debian's package chromium")
    browser = Browser(program)
    try:
        n_found = sum(look_at(browser, report, options) for report in options.report)
    finally:
        browser.close()
    if n_found == 0:
        print(f"{len(options.report)} pages, each in light, dark and narrow: nothing to stumble over")
    return 1 if n_found else 0


if __name__ == "__main__":
    sys.exit(main())
