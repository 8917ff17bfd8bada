"""How common characters are in Chinese text: the evidence by which `decode` tells encodings.

Three tiers of simplified characters by frequency in modern prose, written down from general
knowledge, and the traditional forms of those that have one. The order inside a tier says
nothing. The tiers need not be exact: a wrong decoding hits them by chance only, about one
character in four, a right one three times in four.
"""

_FIRST = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过"
    "发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本"
    "前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很"
    "最重并物手应向头文体政美相见被利什二等产或新己制身果加西月话合回特代内信表化老给位次度门任常"
    "先海通教儿原东"
)
_SECOND = (
    "战斯声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受"
    "目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则"
    "听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共"
    "确传师观清今切院让识候带导争运笔每百九六七八远近包千快米元节服站费请号京增转单流收支持率级联"
    "装准标组技究济需调查注视念引越段热造布存众际响影历史城病亲答容易失落华极办改整验讨红未往深团"
    "始质青养叫根广备群省型"
)
_THIRD = (
    "笑飞怎照片另委火房细须早推半示周料价列具音李商习消专客乐林密足致断志写线兵土石江选约党温护严"
    "研参村划木语苏陈息黑刘击育陆县按岁亚州云角离局随母父船味吃坐尽河罗维差块显讲跟古胜错球曾续范"
    "景刚左右呢吗吧啊呀哪谁谢您帮坏低冷忘试抓卖买店钱币票营销售购货款账户额税银股投融益险负债贷责"
    "督罚违签订协议章印纪纲录档案附项批审核登证卡码钥删除添编辑输键盘屏幕软硬网络址链载图频播拍摄"
    "邮箱短讯配置缓储库索默版升换补丁测署启停止监控警异故障修复恢份迁移扩均衡集互英俄韩泰洲欧港台"
    "湾澳沪粤圳浙杭川渝武汉春夏秋冬晚夜晨午昨星末假休班夫妻孩哥弟姐妹爸妈爷奶叔朋友君士官帅皇帝臣"
    "医药患诊疗症痛血肉骨脑脚食饭菜茶酒油盐糖树花草叶园鱼鸟牛羊狗猫虫衣鞋帽纸刀车铁桥街楼层室厅厂"
    "仓墙窗床桌椅灯镜杯碗袋瓶轻厚薄宽窄圆尖湿干净脏旧破贵宜贫富穷勤懒聪笨善恶苦甜酸辣香臭静闹忙闲"
    "急慢稳懂练训赛奖赢冠季届董秘聘辞职薪酬龄岗培考评绩优良择招毕课堂压缩速幅波射圈轴承齿轮泵阀缸"
    "焊铸锻磨削刨铣钻模零尺寸精粗梦魂鬼怪仙龙虎凤雨雪风雷冰霜雾洋湖泊溪泉沙漠岛谷坡岭峰洞森田野牧"
    "渔农耕植割粮棉麦稻豆态略限若既虽仍况愿敢肯乎否较極乃皆竟甚某余仅属依遵守禁允予妥排临阶降涨跌"
    "盈亏损耗源材燃煤炭钢铜铝锌锡矿辐污染环境废弃"
)
# Traditional forms that differ, by the tier of the simplified ones.
_FIRST_TRADITIONAL = (
    "這個們來為國說時會對過發後裡裏種經麼學現當沒動還進樣從開實無與長機關點業將兩間問應頭體見產話"
    "門東給內兒著於並"
)
_SECOND_TRADITIONAL = (
    "戰聲員論處義幾認條係氣題爾別變總電數報結務場計資許統區隊決馬書則聽達強難權設記類據邊張該規萬"
    "覺術領確傳師觀識帶導爭運筆遠節費請號轉單聯裝準標組濟調註視熱眾響歷親華辦驗討團質養廣備線際續"
)
_THIRD_TRADITIONAL = (
    "飛須價習專樂斷寫選約黨護嚴參劃語蘇陳劉擊陸縣歲亞雲離隨羅維塊顯講勝錯嗎誰謝幫壞試賣買錢幣營銷"
    "購貨賬戶額稅銀險負債貸責罰違簽訂協議紀綱錄檔項審證碼鑰刪編輯輸鍵盤軟網絡鏈載圖頻攝郵訊緩儲庫"
    "級換補測啟監異復遷擴韓歐灣滬漢週孫媽爺帥醫藥診療癥腦飯鹽樹葉園魚鳥車鐵橋樓層廳廠倉牆燈鏡輕寬"
    "圓濕乾淨舊貴貧窮惡鬧懶聰閒穩練訓賽獎贏軍屆職齡崗評績優擇畢課壓縮軸齒輪閥鑄夢龍鳳風霧島嶺農糧"
    "麥態雖況願較僅屬臨階漲虧損鋼銅鋁錫鑛環廢棄滅濃臺舉興藝獨簡檢"
)
# Punctuation and forms that only text in an East Asian language holds.
_PUNCTUATION = "，。、；：？！“”‘’（）《》〈〉【】「」『』—…·～％＋－＝／　"

_WEIGHTS = (
    (1, _THIRD_TRADITIONAL + _THIRD),
    (2, _SECOND_TRADITIONAL + _SECOND),
    (3, _FIRST_TRADITIONAL + _FIRST),
    (2, _PUNCTUATION),
)
_weight_of = {character: float(w) + 1.0 for w, tier in _WEIGHTS for character in tier}


def weight(character: str) -> float:
    """Return how much a non-ASCII character speaks for a Chinese decoding.

    In [-5, 4]: 2 to 4 for the tiers and common punctuation, 0 for the other characters that
    GB 2312 or Big5 count as common, negative for rare ones, and -5 for what no text holds.
    """
    known = _weight_of.get(character)
    if known is None:
        known = _weight_of[character] = _weight_by_range(character)
    return known


def _weight_by_range(character: str) -> float:
    if "\u4e00" <= character <= "\u9fff":
        return 0.0 if _is_first_level(character) else -2.0
    if "\u0080" <= character <= "\u009f" or "\ue000" <= character <= "\uf8ff":
        return -5.0  # C1 controls, private use
    if character >= "\U000f0000" or not character.isprintable():
        return -5.0
    if "\uff10" <= character <= "\uff5a":  # full-width digits and letters
        return 1.0
    return -1.0


def _is_first_level(character: str) -> bool:
    """Tell whether GB 2312 (rows 16-55) or Big5 (0xA440-0xC67E) has it among the common ones."""
    for encoding, low, high in (("gb2312", 0xB0, 0xD7), ("big5", 0xA4, 0xC6)):
        try:
            lead = character.encode(encoding)[0]
        except UnicodeEncodeError:
            continue
        if low <= lead <= high:
            return True
    return False
