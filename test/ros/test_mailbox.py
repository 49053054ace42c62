import threading

from ros_processes import wait_until

from posenet_ros.ros.mailbox import Mailbox


def test_newest_item_replaces_a_waiting_one():
    mailbox = Mailbox()
    assert [mailbox.put('a', number) for number in range(3)] == [False, True, True]
    assert mailbox.take() == {'a': 2}
    assert not mailbox.put('a', 3)


def test_all_waiting_items_are_taken_at_once():
    mailbox = Mailbox()
    mailbox.put('a', 1)
    mailbox.put('b', 2)
    assert mailbox.take() == {'a': 1, 'b': 2}


def test_oldest_key_is_taken_first_and_the_rest_stays_replaceable():
    mailbox = Mailbox()
    for camera in 'abc':
        mailbox.put(camera, 1)
    assert mailbox.put('a', 2)  # newer, in its old place
    assert mailbox.take(1) == {'a': 2}
    assert not mailbox.put('a', 3)
    assert mailbox.put('c', 2)
    assert mailbox.take(2) == {'b': 1, 'c': 2}
    assert mailbox.take(2) == {'a': 3}


def test_cleared_items_are_gone():
    mailbox = Mailbox()
    mailbox.put('a', 1)
    mailbox.clear()
    mailbox.put('b', 2)
    assert mailbox.take() == {'b': 2}


def test_reader_waits_for_an_item_and_for_the_end():
    mailbox = Mailbox()
    taken = []

    def read():
        while (items := mailbox.take()) is not None:
            taken.append(items)

    reader = threading.Thread(target=read)
    reader.start()
    mailbox.put('a', 1)
    assert wait_until(lambda: taken)
    mailbox.close()
    reader.join(5)
    assert not reader.is_alive()
    assert taken == [{'a': 1}]


def test_every_item_is_taken_or_counted_as_replaced():
    mailbox = Mailbox()
    taken = []

    def read():
        while (items := mailbox.take()) is not None:
            taken.extend(items.values())

    reader = threading.Thread(target=read)
    reader.start()
    replaced = sum(mailbox.put('a', number) for number in range(20000))
    mailbox.put('b', 'end')
    assert wait_until(lambda: 'end' in taken)
    mailbox.close()
    reader.join(5)
    numbers = [item for item in taken if item != 'end']
    assert len(numbers) + replaced == 20000
    assert numbers == sorted(numbers)
