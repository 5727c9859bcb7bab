from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from archive.recorders import NameFacts, read_name

TODAY = date(2026, 6, 30)
UUID = "86f5923d-ef1d-4159-b120-a8dec3f6334e"

TIMES = [  # name, recorded_at, site
    # AudioMoth: in UTC unless configured otherwise, so nobody knows
    ("20240501_053000.WAV", "2024-05-01T05:30:00", ""),
    ("20240501_053000T.WAV", "2024-05-01T05:30:00", ""),
    ("24F319046034F5C2_20240501_053000.WAV", "2024-05-01T05:30:00", "24F319046034F5C2"),
    ("20240501/053000.WAV", "2024-05-01T05:30:00", ""),
    ("card 3/20240501/053000T.WAV", "2024-05-01T05:30:00", ""),
    (r"C:\card 3\20240501\053000.WAV", "2024-05-01T05:30:00", ""),
    ("5B07FAC0.WAV", "2018-05-25T12:00:00+00:00", ""),
    ("5B07FAC0", "2018-05-25T12:00:00+00:00", ""),
    # Song Meter
    ("SMM09889_20230625_211402.wav", "2023-06-25T21:14:02", "SMM09889"),
    ("SBT-6-76-18_0+1_0_20160621_080000.wav", "2016-06-21T08:00:00", "SBT-6-76-18"),
    ("FNQ-RBS_20190102_044802_010.wav", "2019-01-02T04:48:02.010000", "FNQ-RBS"),
    ("S4A03895_20190522_000000.wav", "2019-05-22T00:00:00", "S4A03895"),
    ("maad_S4A03895_20190522_000000.ogg", "2019-05-22T00:00:00", "S4A03895"),
    ("OLONG-CH1_0+1_20171121$143444.wav", "2017-11-21T14:34:44", "OLONG-CH1"),
    # Frontier Labs; the places are below
    ("20190626T160000+1000_REC_-27.3888+152.8808.flac", "2019-06-26T16:00:00+10:00", ""),
    ("20181101_060000_REC [-27.3866 152.8761].flac", "2018-11-01T06:00:00", ""),
    (
        "S20240815T091156.982648+1000_E20240815T091251.967555+1000_-12.34567+78.98102.wav",
        "2024-08-15T09:11:56.982648+10:00",
        "",
    ),
    ("201905 8T020000+1000_REC.flac", "2019-05-08T02:00:00+10:00", ""),
    # Swift, OwlSense, BirdNET-Pi
    ("SwiftOne_20220719_000000_-0400.wav", "2022-07-19T00:00:00-04:00", "SwiftOne"),
    ("55063_2024-11-27_T16-47-33.wav", "2024-11-27T16:47:33", ""),
    ("2024-03-19-birdnet-09:48:32.wav", "2024-03-19T09:48:32", ""),
    ("2024-03-19-birdnet-RTSP_1-09:48:32.wav", "2024-03-19T09:48:32", ""),
    ("Parus_major-85-2024-03-19-birdnet-09:48:32.wav", "2024-03-19T09:48:32", ""),
    # BirdCLEF
    ("H21_20230510_051500.ogg", "2023-05-10T05:15:00", "H21"),
    ("BC2026_Train_1_S01_20250101_050000.ogg", "2025-01-01T05:00:00", "S01"),
    ("data/train_soundscapes/H21_20230510_051500.ogg", "2023-05-10T05:15:00", "H21"),
    ("20240501/H21_20230510_051500.ogg", "2023-05-10T05:15:00", "H21"),
    # others
    ("20140101T235959Z.wav", "2014-01-01T23:59:59+00:00", ""),
    ("20070415051314.wav", "2007-04-15T05:13:14", ""),
    ("20070415051314.wav.trimmed.wav", "2007-04-15T05:13:14", ""),
    ("20180517_010348.5AFCD4F4.WAV", "2018-05-17T01:03:48", ""),
    ("short_180801_1630.wav", "2018-08-01T16:30:00", "short"),
    ("180801_163045.wav", "2018-08-01T16:30:45", ""),
    # SoundTrap, Arbimon
    ("671629352.181204100002.wav", "2018-12-04T10:00:02", ""),
    ("1677738025.180912073628.d24.d8.wav", "2018-09-12T07:36:28", ""),
    ("BSRD-2016-09-10_07-30.wav", "2016-09-10T07:30:00", "BSRD"),
    ("2016-09-10_07:30.flac", "2016-09-10T07:30:00", ""),
    # a date and a counter: nobody knows the time
    ("240501_0007.wav", "2024-05-01", ""),
    ("240501_0012.wav", "2024-05-01", ""),
    ("240501_1630.wav", "2024-05-01", ""),
    ("240501_007.WAV", "2024-05-01", ""),
    ("TASCAM_240501_0059.wav", "2024-05-01", "TASCAM"),
    ("2016-09-10_07-30-99.wav", "2016-09-10", ""),
    ("2016-09-10_2530.wav", "2016-09-10", ""),
    ("5B07FAC0.flac", "2018-05-25T12:00:00+00:00", ""),
    ("weird20180801_240000.aac", "2018-08-02T00:00:00", "weird"),
    ("weird20180801_240000-1030.aac", "2018-08-02T00:00:00-10:30", "weird"),
    ("20181231_240000.wav", "2019-01-01T00:00:00", ""),
    ("20240229_120000.wav", "2024-02-29T12:00:00", ""),
    ("2024-05-01T05:30:00+05:45.wav", "2024-05-01T05:30:00+05:45", ""),
    # what stands behind the time is no offset
    ("123_20131012_123456-9_456.mpg", "2013-10-12T12:34:56", ""),
    ("PILLIGA_20121204_234600_+13-090.wav", "2012-12-04T23:46:00", "PILLIGA"),
    ("20240501_053000_060000.wav", "2024-05-01T05:30:00", ""),
    ("20091219T070006+1000_00600.wav", "2009-12-19T07:00:06+10:00", ""),
    # a date alone; what stands behind it may be a counter
    ("2024-03-19.wav", "2024-03-19", ""),
    ("20240501.wav", "2024-05-01", ""),
    ("20240501 12345 owls.wav", "2024-05-01", ""),
    ("H21_20240501_0001.wav", "2024-05-01", "H21"),
    ("H21_20240501_256000.wav", "2024-05-01", "H21"),
]

TIMELESS = [
    f"{UUID}.wav",
    "5AFCD4F45AFCD4F4.WAV",
    "prefix5AFCD4F4prefix.WAV",
    "soundscape_8358733.ogg",
    "acoustic_study_00m.mp3",
    "XC941297.ogg",
    "20240501/owl.wav",
    "20240501_053000/owl.wav",
    "20240501_053000.wav/",
    "20241301_050000.wav",
    "20230229.wav",
    "20241399.wav",
    "H21_00000000_000000.wav",
    "12345678901234.wav",
    "99991231_240000.wav",
    "2024050\u0661_053000.wav",  # an Arabic one
    "soundscape_123456_1234.ogg",
    "61234567.mp3",  # a number of somebody's collection
    "61234567.wav",
    "65432100.flac",
    "35123456.ogg",
    "5B07FAC0.mp3",  # no AudioMoth writes such
    "671629352.181304100002.wav",
    "201205010530.wav",  # minutes or seconds, nobody knows
    "5b07fac0.wav",  # AudioMoth writes capitals, hashes come in small letters
    "",
    "/",
    "H" * 241 + "20240501_053000",  # longer than a name can be
]

DOUBTFUL = [  # name, what the warning must say
    ("00000000.WAV", "says 1970-01-01: the recorder's clock was not set"),
    ("19700101_000000.WAV", "says 1970-01-01: the recorder's clock was not set"),
    ("20240501/../19700101/000512.WAV", "says 1970-01-01: the recorder's clock was not set"),
    ("1970-12-31.wav", "says 1970-12-31: the recorder's clock was not set"),
    ("19891231_235959.wav", "before 1990"),
    ("18991231T235959Z.wav", "before 1990"),
    ("3512345A.wav", "before 2017"),  # as Unix time 1998: a number of somebody's collection
    ("20260702_000000.wav", "says 2026-07-02: that is in the future"),
    ("20260701_240000.wav", "says 2026-07-02: that is in the future"),
    ("20991231.wav", "in the future"),
    ("FFFFFFFF.WAV", "in the future"),
]

PLACES = [  # name, latitude, longitude
    ("20190626T160000+1000_REC_-27.3888+152.8808.flac", "-27.3888", "152.8808"),
    ("20190626T160000+1000_REC_-27.3888+152.8808", "-27.3888", "152.8808"),
    ("20181101_060000_REC [-27.3866 152.8761].flac", "-27.3866", "152.8761"),
    ("S20240815T091156.982648+1000_E20240815T091251.967555+1000_-12.34567+78.98102.wav", "-12.34567", "78.98102"),
    ("20180226_040000_Bar29 _27.2819 90.1361_.wav", "27.2819", "90.1361"),
    ("20180226_040000Z_+40.1213-075.0015+2.79CRSWGS_84.flac", "40.1213", "-75.0015"),
    ("19700101T000000+1000_REC_-27.3888+152.8808.flac", "-27.3888", "152.8808"),
    ("20190626T160000+1000_REC_-97.3888+152.8808.flac", "", ""),
    ("20190626T160000+1000_REC_+00.0000+000.0000.flac", "", ""),
    ("20190626T160000+1000_REC_1.5 2.5.flac", "", ""),
    ("SwiftOne_20220719_000000_-0400.wav", "", ""),
]

LOCAL_STYLES = [
    "%Y%m%d_%H%M%S.WAV",
    "%Y%m%d_%H%M%ST.WAV",
    "24F319046034F5C2_%Y%m%d_%H%M%S.WAV",
    "%Y%m%d/%H%M%S.WAV",
    "SBT-6-76-18_0+1_0_%Y%m%d_%H%M%S.wav",
    "55063_%Y-%m-%d_T%H-%M-%S.wav",
    "%Y-%m-%d-birdnet-%H:%M:%S.wav",
    "BC2026_Train_1_S01_%Y%m%d_%H%M%S.ogg",
    "%Y%m%d%H%M%S.wav",
]
OFFSET_STYLES = ["%Y%m%dT%H%M%S%z_REC_-27.3888+152.8808.flac", "SwiftOne_%Y%m%d_%H%M%S_%z.wav", "%Y%m%d-%H%M%S%z.mp3"]

moments = st.datetimes(datetime(1990, 1, 1), datetime(2026, 6, 30, 23, 59, 59)).map(
    lambda when: when.replace(microsecond=0)
)
quarters = st.integers(-12 * 4, 14 * 4).map(lambda quarter: timezone(timedelta(minutes=15 * quarter)))
names = (
    st.text() | st.text("0123456789_T-+.: []ZS/AF", max_size=40) | st.from_regex(r"[12]\d{3}[01]\d{3}[T_]?\d{6}.{0,9}")
)


@pytest.mark.parametrize(("name", "recorded_at", "site"), TIMES)
def test_every_style_tells_its_time_and_its_site(name: str, recorded_at: str, site: str) -> None:
    facts = read_name(name, TODAY)
    assert (facts.recorded_at, facts.site, facts.warning) == (recorded_at, site, "")


@pytest.mark.parametrize("name", TIMELESS)
def test_names_without_a_time_tell_nothing(name: str) -> None:
    assert read_name(name, TODAY) == NameFacts()


@pytest.mark.parametrize(("name", "reason"), DOUBTFUL)
def test_a_time_that_cannot_be_right_is_left_out_and_the_reason_given(name: str, reason: str) -> None:
    facts = read_name(name, TODAY)
    assert facts.recorded_at == ""
    assert reason in facts.warning


@pytest.mark.parametrize(("name", "latitude", "longitude"), PLACES)
def test_places_are_decimal_degrees_on_earth(name: str, latitude: str, longitude: str) -> None:
    facts = read_name(name, TODAY)
    assert (facts.latitude, facts.longitude) == (latitude, longitude)


def test_a_clock_that_was_not_set_does_not_hide_the_site() -> None:
    assert read_name("H21_19700101_000000.ogg", TODAY).site == "H21"


def test_tomorrow_is_believed_and_the_day_after_is_not() -> None:
    assert read_name("20260701_235959.wav", TODAY).recorded_at == "2026-07-01T23:59:59"
    assert read_name("20260702_000000.wav", TODAY).recorded_at == ""
    assert read_name("20260702_000000.wav", TODAY + timedelta(days=1)).recorded_at == "2026-07-02T00:00:00"


def test_without_a_given_day_the_present_one_counts() -> None:
    present = date.today()
    assert read_name(f"{present:%Y%m%d}_000000.wav").recorded_at == f"{present}T00:00:00"
    assert read_name(f"{present + timedelta(days=3):%Y%m%d}_000000.wav").recorded_at == ""


@given(names, st.dates())
@example("99991231_240000.wav", date.max)
@example("00010101_000000.wav", date.min)
@example("2024050\u0661_053000.wav", TODAY)
def test_no_text_whatever_raises_or_tells_a_time_out_of_range(name: str, today: date) -> None:
    facts = read_name(name, today)
    if facts.recorded_at:
        when = datetime.fromisoformat(facts.recorded_at)
        assert when.year >= 1990
        assert (when.date() - today).days <= 1
        assert not facts.warning


@given(moments, st.sampled_from(LOCAL_STYLES))
def test_a_local_time_is_read_back_exactly(when: datetime, style: str) -> None:
    assert datetime.fromisoformat(read_name(when.strftime(style), TODAY).recorded_at) == when


@given(moments, quarters, st.sampled_from(OFFSET_STYLES))
def test_a_time_with_an_offset_is_read_back_exactly(when: datetime, zone: timezone, style: str) -> None:
    there = when.replace(tzinfo=zone)
    told = datetime.fromisoformat(read_name(there.strftime(style), TODAY).recorded_at)
    assert (told, told.utcoffset()) == (there, there.utcoffset())


@given(moments, st.integers(0, 999))
def test_milliseconds_are_read_back_exactly(when: datetime, thousandths: int) -> None:
    exact = when + timedelta(milliseconds=thousandths)
    assert (
        datetime.fromisoformat(read_name(f"FNQ-RBS_{when:%Y%m%d_%H%M%S}_{thousandths:03}.wav", TODAY).recorded_at)
        == exact
    )
    assert datetime.fromisoformat(read_name(f"{when:%Y%m%dT%H%M%S}.{thousandths:03}.wav", TODAY).recorded_at) == exact


@given(moments)
def test_a_date_alone_is_read_back_exactly(when: datetime) -> None:
    assert read_name(f"H21_{when:%Y%m%d}.wav", TODAY).recorded_at == f"{when.date()}"
    assert read_name(f"H21_{when:%Y-%m-%d}.wav", TODAY).recorded_at == f"{when.date()}"


@given(moments.filter(lambda when: when.year >= 2000 and when.hour > 0))
def test_a_short_time_is_read_back_to_the_minute_where_it_is_no_counter(when: datetime) -> None:
    told = read_name(f"short_{when:%y%m%d_%H%M}.wav", TODAY).recorded_at
    assert datetime.fromisoformat(told) == when.replace(second=0)


@given(moments.filter(lambda when: when.year >= 2017))
def test_the_unix_time_of_an_old_audiomoth_is_read_back_exactly_unless_it_may_be_a_number(when: datetime) -> None:
    there = when.replace(tzinfo=UTC)
    name = f"{int(there.timestamp()):08X}"
    told = read_name(f"{name}.WAV", TODAY).recorded_at
    assert told == ("" if name.isdecimal() else there.isoformat())


@pytest.mark.parametrize(
    "unit", ["0", "20", "2024-", "-", "_", "20240501_", "2024-03-19-birdnet-RTSP_1", "1.000 ", "A/", "\\"]
)
@pytest.mark.parametrize("end", ["", "!", "\n"])
def test_hostile_names_are_read_in_no_time(unit: str, end: str) -> None:
    start = time.perf_counter()
    read_name(unit * (255 // len(unit)) + end, TODAY)
    read_name(unit * 100_000 + end, TODAY)
    assert time.perf_counter() - start < 0.5
