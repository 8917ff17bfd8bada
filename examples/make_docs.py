"""Write the files of examples/docs that an editor cannot: PDF, DOCX, and text in GB18030.

Run once, from the root of the repository, when their content changes:

    .venv/bin/python examples/make_docs.py

The company and everything about it is made up. The two Markdown files beside these are edited
by hand; numbers that occur in several files (prices, allowances, hours) must stay the same.
"""

import csv
import io
from datetime import datetime
from pathlib import Path

import docx
from reportlab.lib import colors
from reportlab.lib.enums import TA_CENTER
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

DOCS = Path(__file__).parent / "docs"
FONT = "STSong-Light"  # every PDF viewer brings it; it is named in the file, not embedded

WARRANTY: list[tuple[str, list[str | list[list[str]]]]] = [
    (
        "一、适用范围",
        [
            "本政策适用于青屿仪器有限公司在中国大陆销售的 QY-300 型冷冻干燥机及其配套真空泵。"
            "通过经销商购买的设备同样适用，保修期从最终用户签署验收单之日起计算，"
            "但不迟于出厂后九十天。",
            "出口设备的保修由当地代理商按照销售合同执行，不适用本政策。",
        ],
    ),
    (
        "二、保修期限",
        [
            "各部件的保修期限见下表。更换的零件继承原零件剩余的保修期，剩余不足三个月的按三个月计算。",
            [
                ["部件", "保修期限", "备注"],
                ["整机（主机、控制器、搁板）", "24 个月", "不含易损件"],
                ["制冷压缩机", "36 个月", "仅限按手册要求静置 24 小时后开机"],
                ["真空泵", "12 个月", "须保留换油记录"],
                ["真空传感器、温度探头", "12 个月", "跌落损坏除外"],
                ["门封圈、泵油、过滤器", "不保修", "属于易损件"],
            ],
            "设备到货后十五天内出现性能故障的，用户可以选择换货；三十天以后不接受无理由退货。",
        ],
    ),
    (
        "三、不属于保修的情形",
        [
            "下列情形不属于保修范围：运输后没有静置满二十四小时即开机；使用了非指定牌号的泵油；"
            "干燥有机溶剂含量超过百分之五的样品；自行打开制冷回路；超过 500 小时没有更换泵油；"
            "电压超出 230 伏正负百分之十；火灾、水淹和雷击。",
            "亚克力门上的划痕不影响使用的，不予更换；出现裂纹的，须立即停机并联系服务部，"
            "两年内免费更换一次。",
        ],
    ),
    (
        "四、报修与响应时间",
        [
            "报修请在工作日 9:00 至 17:30 拨打设备服务部内线 8110，或者发送邮件并附上序列号、"
            "故障代码和最近一次运行记录。服务部在两个工作小时内给出电话答复。",
            [
                ["地区", "工程师到场时间", "备机"],
                ["江苏、浙江、上海、安徽", "24 小时以内", "可借用，免费 14 天"],
                ["广东、福建", "48 小时以内", "可借用，免费 14 天"],
                ["其他省份", "3 个工作日以内", "运费由用户承担"],
            ],
            "故障代码 E02 和 E05 属于紧急故障，节假日也受理，到场时间缩短一半。"
            "同一故障三十天内返修三次仍未解决的，免费更换整机。",
        ],
    ),
    (
        "五、保修期外的收费",
        [
            "保修期外的维修按工时和零件收费。工程师工时费为每小时 480 元，不足一小时按一小时计算；"
            "差旅费按实际发生收取，住宿每晚不超过 550 元。零件价格以《备件价目表》为准，"
            "更换的零件保修六个月。",
            [
                ["服务项目", "价格", "说明"],
                ["延保一年", "6800 元", "须在原保修期内购买"],
                ["延保两年", "12000 元", "须在原保修期内购买"],
                ["年度保养", "3600 元/次", "含换油、清洁和泄漏检查，不含零件"],
                ["真空与温度校准", "1200 元/次", "出具校准证书，有效期 12 个月"],
                ["操作培训", "2000 元/天", "每期不超过 8 人"],
            ],
            "购买年度保养满三年的用户，压缩机保修期延长到 60 个月。",
        ],
    ),
    (
        "六、退换货流程",
        [
            "一、用户填写《退换货申请》，服务部在三个工作日内答复。二、批准后用户用原包装寄回，"
            "设备须先排空泵油并除霜。三、收到设备后五个工作日内完成检测。四、符合条件的，"
            "十个工作日内退款或者发出新设备。",
            "非质量原因的退货，收取合同金额百分之十的折旧费；包装缺失的，另收 900 元包装费。",
        ],
    ),
    (
        "七、客户资料与投诉",
        [
            "维修中读取的运行记录只用于故障分析，结案后保存十二个月即删除，不提供给第三方。"
            "对服务不满意的，可以向质量部投诉，质量部在五个工作日内书面答复。",
            "Summary in English: the main unit is covered for 24 months, the compressor for 36 "
            "months and the vacuum pump for 12 months. Labour outside the warranty costs 480 yuan "
            "per hour. Door gaskets, pump oil and filters are consumables and are not covered.",
        ],
    ),
]

PRICES = [
    ["料号", "名称", "适用机型", "单价（元）", "库存（件）", "供货周期（天）"],
    ["QY-OIL-46", "真空泵油 1.1 升装", "QY-300", "180", "240", "2"],
    ["QY-DG-300", "门封圈", "QY-300", "420", "36", "2"],
    ["QY-VF-02", "放气过滤器", "QY-300", "260", "52", "2"],
    ["QY-MF-25", "油雾过滤器", "QY-300", "960", "18", "2"],
    ["QY-MF-25E", "油雾过滤器滤芯", "QY-300", "210", "75", "2"],
    ["QY-VS-2", "真空传感器", "QY-300、QY-100", "2850", "9", "5"],
    ["QY-TP-4", "温度探头", "QY-300、QY-100", "340", "41", "2"],
    ["QY-AD-300", "亚克力门", "QY-300", "1680", "6", "7"],
    ["QY-KF25-1", "KF25 真空软管 1 米", "全部机型", "390", "22", "2"],
    ["QY-PV-16", "真空泵旋片与密封件套装", "QY-300", "1150", "11", "10"],
    ["QY-FU-16", "保险丝 T16A（5 只装）", "全部机型", "45", "130", "2"],
    ["QY-TR-1", "不锈钢托盘", "QY-300", "290", "64", "2"],
    ["QY-CP-300", "制冷压缩机", "QY-300", "7900", "2", "30"],
    ["QY-BT-3", "控制器电池", "QY-300、QY-100", "65", "88", "2"],
]

CANTEEN = """\
关于食堂夏季供餐安排的通知

各部门：

为配合夏季高温期间的工作安排，自 6 月 1 日起至 9 月 30 日止，苏州总部食堂供餐作如下调整。

一、供餐时间
早餐：7:15 至 8:45
午餐：11:40 至 13:10，总装车间早班人员请于 11:40 先行就餐
晚餐：17:30 至 18:45
夜宵：21:30 至 22:15，仅供中班和值班人员，凭排班表就餐

二、价格
早餐 6 元，午餐和晚餐各 15 元（两荤两素一汤），夜宵 10 元。每个工作日 25 元的餐补照常充入饭卡，\
当月余额可以结转，离职时不予兑现。

三、新增窗口
二楼 3 号窗口供应清真餐，4 号窗口供应减脂餐，减脂餐每份 18 元，须在当天 9:30 以前在系统中预订。

四、防暑饮品
6 月至 9 月每天 14:00 在总装车间门口免费供应绿豆汤，每人一份。

五、访客就餐
访客由接待部门提前一天登记，午餐每位 30 元，费用计入部门招待费。

饭卡遗失请到行政部（内线 8107）挂失，补卡工本费 20 元。食堂每周六、周日不供餐。

行政部
2025 年 5 月 20 日
"""

# Headings start with "#", as in Markdown; a list is a table whose first row is the header.
TRAVEL: list[str | list[list[str]]] = [
    "# Travel and Expense Guide for Staff and Visitors",
    "This guide explains in English how business trips are approved and paid at Qingyu "
    "Instruments. The staff handbook (员工手册, chapters 5 and 6) is the binding text.",
    "# 1. Before the trip",
    "Request domestic trips in the system at least 3 working days ahead and trips abroad at least "
    "15 working days ahead. Your direct manager approves domestic trips; the responsible vice "
    "president approves trips abroad. For urgent repairs at a customer's site you may leave at "
    "once and hand in the request within 24 hours.",
    "You may ask for a cash advance of up to 5,000 yuan. Settle it within 10 working days after "
    "you return. There is no second advance while the first one is open.",
    "# 2. Transport",
    "Book second class on high-speed trains and economy class on flights. You may fly when the "
    "train takes more than 6 hours one way. Taxis are paid when you arrive after 22:00 or carry "
    "more than 20 kg of tools. Using your own car is paid with 1.2 yuan per kilometre; road tolls "
    "are paid on top.",
    "# 3. Hotels",
    "The company pays the actual price of the room up to these limits, breakfast included:",
    [
        ["City class", "Cities", "Limit per night"],
        ["Class 1", "Beijing, Shanghai, Guangzhou, Shenzhen", "550 yuan"],
        [
            "Class 2",
            "Other provincial capitals, Suzhou, Qingdao, Xiamen, Ningbo, Dalian",
            "400 yuan",
        ],
        ["Class 3", "All other cities", "300 yuan"],
    ],
    "At trade fairs where the organiser names the hotel, the limit rises by 20 percent. Attach "
    "the invitation to the request.",
    "# 4. Daily allowance",
    "Domestic trips: 100 yuan for meals and 60 yuan for local transport per day, without "
    "receipts. For each meal that a customer provides, 30 yuan are deducted. Trips abroad: 60 US "
    "dollars per day. The day of departure and the day of return both count as full days.",
    "# 5. Claiming expenses",
    "Hand in the claim within 30 days. Expenses of one year must reach the Finance Department by "
    "15 January of the next. Invoices above 1,000 yuan need a proof of payment.",
    [
        ["Amount of the claim", "Approved by"],
        ["Below 2,000 yuan", "Head of department"],
        ["2,000 to 20,000 yuan", "Finance manager"],
        ["Above 20,000 yuan", "General manager"],
    ],
    "The Finance Department checks claims every Tuesday and pays within 5 working days after "
    "approval. Questions: extension 8105.",
    "# 6. Visitors",
    "Visiting engineers receive a guest pass at the front desk and must wear it visibly. Guest "
    "Wi-Fi accounts last one day. Safety shoes for the assembly hall are lent at the front desk "
    "in sizes 36 to 46. Parking for visitors is free in rows A and B.",
]


def main() -> None:
    write_pdf(DOCS / "设备保修与售后政策.pdf")
    write_docx(DOCS / "travel-and-expenses.docx")
    write_csv(DOCS / "备件价目表.csv")
    (DOCS / "食堂供餐通知.txt").write_bytes(CANTEEN.replace("\n", "\r\n").encode("gb18030"))


def write_pdf(path: Path) -> None:
    """Write the warranty policy: text with tables on A4, page numbers at the foot."""
    pdfmetrics.registerFont(UnicodeCIDFont(FONT))
    body = ParagraphStyle("body", fontName=FONT, fontSize=11, leading=19, wordWrap="CJK")
    body.spaceAfter = 6
    heading = ParagraphStyle("heading", parent=body, fontSize=14, leading=22, spaceBefore=8)
    title = ParagraphStyle("title", parent=body, fontSize=20, leading=30, alignment=TA_CENTER)
    note = ParagraphStyle("note", parent=body, alignment=TA_CENTER, textColor=colors.grey)

    flow = [
        Paragraph("设备保修与售后政策", title),
        Paragraph("文件编号 QY-SV-012，2025 年 3 月 1 日起施行，设备服务部", note),
        Spacer(1, 6 * mm),
    ]
    for name, blocks in WARRANTY:
        flow.append(Paragraph(name, heading))
        for block in blocks:
            if isinstance(block, str):
                flow.append(Paragraph(block, body))
            else:
                flow += [pdf_table(block, body), Spacer(1, 4 * mm)]
    document = SimpleDocTemplate(
        str(path),
        pagesize=A4,
        title="设备保修与售后政策",
        author="青屿仪器有限公司",
        invariant=True,  # no date inside, so that the same content gives the same bytes
    )
    document.build(flow, onFirstPage=page_number, onLaterPages=page_number)


def pdf_table(rows: list[list[str]], style: ParagraphStyle) -> Table:
    table = Table(
        [[Paragraph(cell, style) for cell in row] for row in rows],
        colWidths=[55 * mm, 45 * mm, 60 * mm],
    )
    table.setStyle(
        TableStyle(
            [
                ("GRID", (0, 0), (-1, -1), 0.5, colors.grey),
                ("BACKGROUND", (0, 0), (-1, 0), colors.whitesmoke),
                ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
            ]
        )
    )
    return table


def page_number(canvas: Canvas, document: SimpleDocTemplate) -> None:
    canvas.setFont(FONT, 9)
    canvas.drawCentredString(A4[0] / 2, 12 * mm, f"第 {document.page} 页")


def write_docx(path: Path) -> None:
    """Write the travel guide with real heading styles and tables."""
    document = docx.Document()
    for block in TRAVEL:
        if isinstance(block, list):
            table = document.add_table(rows=0, cols=len(block[0]), style="Table Grid")
            for row in block:
                for cell, text in zip(table.add_row().cells, row, strict=True):
                    cell.text = text
        elif block.startswith("# "):
            document.add_heading(block.removeprefix("# "), level=1)
        else:
            document.add_paragraph(block)
    properties = document.core_properties
    properties.author = "Qingyu Instruments"
    properties.created = properties.modified = datetime(2025, 3, 1)
    document.save(str(path))


def write_csv(path: Path) -> None:
    """Write the price list as a Chinese Excel does: GB18030, CRLF."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(PRICES)
    path.write_bytes(text.getvalue().encode("gb18030"))


if __name__ == "__main__":
    main()
