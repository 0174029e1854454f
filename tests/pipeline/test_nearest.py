from pipeline.nearest import nearest


def test_the_nearest_name_is_found_in_any_case():
    assert nearest("Colse", ["open", "Close"]) == "did you mean Close?"


def test_nothing_near_says_nothing():
    assert nearest("xyz", ["open", "close"]) == ""
    assert nearest("xyz", []) == ""
