"""The pages in headless Chromium: open, type, send, read the answer; by keyboard, on a phone's width, without requests elsewhere."""

import json
import os
import pathlib
import shutil

import pytest
from serving import EXAMPLES, PATIENCE, TESTDATA, Server

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MUST_RUN = bool(os.environ.get("CI") or os.environ.get("OUTHAUL_REQUIRE_CLIENTS"))

# Where a screenshot is kept, for docs/images; set by `make screenshots`.
SCREENSHOTS = os.environ.get("OUTHAUL_SCREENSHOTS")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A server with models of each kind of input."""
    folder = tmp_path_factory.mktemp("pages") / "models"
    shutil.copytree(EXAMPLES, folder)
    for model in sorted((TESTDATA / "text_models").iterdir()):
        if model.is_dir():
            shutil.copytree(model, folder / model.name)
    with Server(folder, tmp_path_factory.mktemp("pages-server") / "log") as server:
        yield server


def start(width, *arguments):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", f"--window-size={width},1000", *arguments,
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(DRIVER))


@pytest.fixture(scope="module")
def browser():
    if not (CHROMIUM and DRIVER):
        assert not MUST_RUN, "Chromium and its driver are needed here: apt-get install chromium chromium-driver"
        pytest.skip("no Chromium with its driver")
    browser = start(1200)
    yield browser
    browser.quit()


def until(browser, condition, what):
    return WebDriverWait(browser, PATIENCE, poll_frequency=0.05).until(lambda _: condition(), what)


def one(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def answer(browser):
    return one(browser, "#answer").text


def sent(browser):
    """Waits for the answer to what was sent."""
    def ready():
        text = answer(browser)
        return text if "The whole answer" in text or browser.find_elements(By.CSS_SELECTOR, "#answer .error") else None

    return until(browser, ready, "an answer on the page")


def keep(browser, name):
    if SCREENSHOTS:
        browser.save_screenshot(str(pathlib.Path(SCREENSHOTS) / f"{name}.png"))


def complaints(browser):
    """What the browser's console says of errors, refused resources among them."""
    return [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


def hosts(browser):
    """The hosts that the pages have asked since the last look."""
    found = set()
    for line in browser.get_log("performance"):
        message = json.loads(line["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if not url.startswith(("data:", "blob:", "chrome:", "about:")):
                found.add(url.split("/")[2])
    return found


def test_the_list_leads_to_a_model_that_answers(browser, shown):
    browser.get(f"http://{shown.http}/")
    hosts(browser)
    state = one(browser, "tr[data-model=iris] [data-state]")
    assert state.text == "ready"
    keep(browser, "models")
    one(browser, "tr[data-model=iris] a").click()
    until(browser, lambda: browser.find_elements(By.ID, "form"), "the model's page")
    fields = browser.find_elements(By.CSS_SELECTOR, "[data-kind=numbers] input")
    assert len(fields) == 4
    for field, value in zip(fields, ("5.1", "3.5", "1.4", "0.2")):
        field.clear()
        field.send_keys(value)
    one(browser, "[type=submit]").click()
    text = sent(browser)
    assert "label" in text and "0" in text, text
    assert one(browser, "#times .key").text.count("ms") >= 2
    keep(browser, "iris")
    assert complaints(browser) == []
    assert hosts(browser) <= {shown.http}


def test_text_is_typed_and_sent_by_keyboard_alone(browser, shown):
    browser.get(f"http://{shown.http}/try/tiny-classifier")
    area = one(browser, "textarea")
    area.clear()
    # From the address bar on, the keyboard must lead to the text and to the answer.
    browser.execute_script("document.activeElement.blur()")
    for _ in range(30):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        if browser.switch_to.active_element == area:
            break
    assert browser.switch_to.active_element == area, "the text cannot be reached with Tab"
    area.send_keys("a very good film")
    area.send_keys(Keys.CONTROL, Keys.ENTER)
    sent(browser)
    assert browser.find_elements(By.CSS_SELECTOR, "#answer .headline"), answer(browser)
    assert browser.find_elements(By.CSS_SELECTOR, "#answer meter"), "bars of the classes"
    keep(browser, "classifier")
    assert complaints(browser) == []


def test_several_rows_of_an_embedding_are_compared(browser, shown):
    browser.get(f"http://{shown.http}/try/tiny-embedder")
    one(browser, "#add").click()
    areas = browser.find_elements(By.CSS_SELECTOR, "textarea")
    for area, text in zip(areas, ("a good film", "a good film")):
        area.clear()
        area.send_keys(text)
    one(browser, "[type=submit]").click()
    assert "Similarity" in sent(browser)
    assert one(browser, "#answer table tbody tr td:nth-child(3)").text == "1.0000"


def test_code_follows_what_is_typed(browser, shown):
    browser.get(f"http://{shown.http}/try/tiny-classifier")
    area = one(browser, "textarea")
    area.clear()
    area.send_keys("it's \"good\"")
    code = one(browser, "#code")
    until(browser, lambda: "curl" in code.text and "it'\\''s" in code.text, "curl, quoted for a shell")
    for language, word in (("python", "requests.post"), ("javascript", "await fetch")):
        one(browser, f"[data-code={language}]").click()
        until(browser, lambda: word in code.text, language)
        assert "it's" in code.text


def test_what_is_wrong_is_told_on_the_page(browser, shown):
    browser.get(f"http://{shown.http}/try/iris")
    fields = browser.find_elements(By.CSS_SELECTOR, "[data-kind=numbers] input")
    for field in fields:
        field.clear()
    one(browser, "[type=submit]").click()
    until(browser, lambda: "needs a number" in answer(browser), "a complaint about the empty field")
    assert browser.switch_to.active_element == fields[0], "the field to mend has the focus"
    browser.get(f"http://{shown.http}/try/no-such-model")
    assert "no-such-model" in one(browser, "main").text


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_fit_a_phone(browser, shown, dark):
    phone = start(360, *(["--force-dark-mode"] if dark else []))
    try:
        phone.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True})
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        phone.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        for path in ("/", "/try/iris", "/try/tiny-classifier", "/docs"):
            phone.get(f"http://{shown.http}{path}")
            wide = phone.execute_script("return document.documentElement.scrollWidth")
            assert wide <= 360, f"{path} is {wide} pixels wide"
        phone.get(f"http://{shown.http}/try/tiny-classifier")
        back = phone.execute_script("return getComputedStyle(document.body).backgroundColor")
        brightness = sum(int(part) for part in back.strip("rgba()").split(",")[:3])
        assert (brightness < 200) == dark, back
        keep(phone, "phone-dark" if dark else "phone")
        assert complaints(phone) == []
    finally:
        phone.quit()
